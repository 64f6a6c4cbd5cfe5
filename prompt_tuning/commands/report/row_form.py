"""What a row of results may hold: what files of other machines hold is counted with, drawn and shown."""

import math
from collections.abc import Callable, Mapping
from typing import Any

# As large as a count of parameters may be said to be; larger numbers cannot be drawn.
_LARGEST = 1e30


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= _LARGEST and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0


def _is_points(value: Any) -> bool:
    pairs = isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)
    return pairs and all(_is_count(step) and _or_none(_is_number)(y) for step, y in value)


def _or_none(form: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or form(value)


def _mapping_of(form: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(form, value.values()))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int, float))


_NUMBERS = _mapping_of(_or_none(_is_number))
_FORMS = {
    **dict.fromkeys(("sweep", "cell", "status"), _is_text),
    "axes": _mapping_of(_is_scalar),
    **dict.fromkeys(("scale", "title", "key", "error", "log", "device"), _or_none(_is_text)),
    **dict.fromkeys(("command", "sweep_command", "model_dir"), _or_none(_is_text)),
    "versions": _or_none(_mapping_of(_is_text)),
    "score": _or_none(_is_number),
    "metrics": _or_none(_NUMBERS),
    "evaluations": _or_none(_mapping_of(_NUMBERS)),
    "curve": _or_none(_is_points),
    **dict.fromkeys(("best_step", "steps", "total_params"), _or_none(_is_count)),
    "trainable_params": _or_none(_is_count),
    "train_seconds": _or_none(lambda value: _is_number(value) and value >= 0),
}


def misformed(row: Mapping[str, Any]) -> list[str]:
    """Returns the fields of a row whose values are nothing that a sweep writes."""
    return [name for name, is_right in _FORMS.items() if name in row and not is_right(row[name])]
