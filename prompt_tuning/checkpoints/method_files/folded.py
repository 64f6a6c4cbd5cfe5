"""What a run trained, as it is used: without the parts of its method that are discarded after training."""

from collections.abc import Mapping
from typing import Any

from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.params import prefix, residual
from prompt_tuning.params.names import PROMPT_PATH, PROMPT_REGEX
from prompt_tuning.types import Array

# In what is recorded of a prompt: the method, with its settings, that it was folded from.
FOLDED = "folded_from"
# Method -> (arrays by the last part of their path, settings) -> the plain prompt.
_FOLDS = {"Residual": residual.fold}


def is_folded(method: Mapping[str, Any] | None) -> bool:
    """Returns whether what a method trains is used as a plain prompt.

    Args:
      method: As `Method.describe` has it; None for no method.
    """
    return (method or {}).get("name") in _FOLDS


def as_used(
    arrays: Mapping[str, Array], info: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns what a run trained as it is used, and what is recorded of that; both as they are where nothing is folded.

    Args:
      arrays: Path -> what the prompt and the method added.
      info: What the run records of them.
    """
    method = info.get(METHOD)
    if not is_folded(method):
        return without_network(arrays, info)
    by_name = {path.rpartition("/")[2]: x for path, x in arrays.items()}
    kept = {name: x for name, x in info.items() if name != METHOD}
    recorded = {**kept, FOLDED: method, "trainable_regex": [*PROMPT_REGEX]}
    return {PROMPT_PATH: _FOLDS[method["name"]](by_name, method)}, recorded


def without_network(
    arrays: Mapping[str, Array], info: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns what a method added without the network that made it, where one did; as `as_used`."""
    method = info.get(METHOD)
    if not prefix.is_made(method):
        return dict(arrays), dict(info)
    used, description = prefix.fold(arrays, method or {})
    return used, {**info, METHOD: description}
