"""What a run trained, as it is used: without the parts of its method that are discarded after training."""

from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.params.names import PROMPT_REGEX
from prompt_tuning.types import Array

# In what is recorded of a prompt: the methods, with their settings, that it was folded from.
FOLDED = "folded_from"


def is_folded(method: Mapping[str, Any] | None) -> bool:
    """Returns whether a part of what a method trains is discarded after training.

    Args:
      method: As `Method.describe` has it; None for no method.
    """
    return any(map(_fold_of, _parts(method)))


def as_used(
    arrays: Mapping[str, Array], info: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns what a run trained as it is used, and what is recorded of that; both as they are where nothing is folded.

    Args:
      arrays: Path -> what the prompt and the method added.
      info: What the run records of them.
    """
    used, recorded = without_networks(arrays, info)
    parts = _parts(recorded.get(METHOD))
    rest = [part for part in parts if not _fold_of(part)]
    if len(rest) == len(parts):
        return used, recorded
    for part in parts:
        if fold := _fold_of(part):
            used = fold(used, part)
    recorded[FOLDED] = recorded.pop(METHOD)
    if not rest:
        recorded["trainable_regex"] = [*PROMPT_REGEX]
    else:
        recorded[METHOD] = {**info[METHOD], "methods": rest} if len(rest) > 1 else rest[0]
    return used, recorded


def without_networks(
    arrays: Mapping[str, Array], info: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns what methods added without the networks that made it, and what is recorded of that; see `as_used`."""
    used, recorded = dict(arrays), dict(info)
    parts = [dict(part) for part in _parts(info.get(METHOD))]
    for number, part in enumerate(parts):
        kind = _kind_of(part)
        if kind is not None and kind.without_network is not None:
            used, parts[number] = kind.without_network(used, part)
    if info.get(METHOD):
        is_one = "methods" not in info[METHOD]
        recorded[METHOD] = parts[0] if is_one else {**info[METHOD], "methods": parts}
    return used, recorded


def _parts(method: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The methods that a method consists of."""
    return (method or {}).get("methods") or [method or {}]


def _kind_of(method: Mapping[str, Any]) -> kinds.Kind | None:
    """What can be done with the results of one method."""
    return next((kind for kind in kinds.KINDS if kind.name == method.get("name")), None)


def _fold_of(method: Mapping[str, Any]) -> Callable[..., dict[str, Array]] | None:
    """How the results of one method are folded; None where they are not."""
    kind = _kind_of(method)
    return kind and kind.fold
