"""What a row of results may hold: what files of other machines hold is counted with, drawn and shown."""

import math
from collections.abc import Callable
from typing import Any

# As large as a count of parameters may be said to be; larger numbers cannot be drawn.
_LARGEST = 1e30
DONE, FAILED = "done", "failed"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= _LARGEST and math.isfinite(value)


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


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
    "sweep": _is_text,
    "status": lambda value: value in (DONE, FAILED),
    "axes": _or_none(_mapping_of(_is_scalar)),
    **dict.fromkeys("scale cell key title error log device".split(), _or_none(_is_text)),
    **dict.fromkeys("command sweep_command model_dir".split(), _or_none(_is_text)),
    "versions": _or_none(_mapping_of(_is_text)),
    "score": _or_none(_is_number),
    "metrics": _or_none(_NUMBERS),
    "evaluations": _or_none(_mapping_of(_NUMBERS)),
    "curve": _or_none(_is_points),
    **dict.fromkeys(
        "best_step steps total_params trainable_params update_bytes".split(), _or_none(_is_count)
    ),
    **dict.fromkeys("train_seconds seconds".split(), _or_none(_is_duration)),
}


def wrong_parts(row: Any) -> list[str]:
    """Returns the fields of a row whose values are nothing that a sweep writes; empty for a row.

    Args:
      row: Any JSON.
    """
    if not isinstance(row, dict):
        return ["everything"]
    return [name for name, is_right in _FORMS.items() if not is_right(row.get(name))]
