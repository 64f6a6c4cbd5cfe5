"""Parameter trees: paths joined by `/`, and the split into trainable and frozen."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_tuning.types import PyTree


def flatten(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a nested dict by their `/`-joined path, in sorted order of paths."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping):
            for key in sorted(node):
                visit(f"{prefix}/{key}" if prefix else str(key), node[key])
        else:
            flat[prefix] = node

    visit("", tree)
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the nested dict whose leaves are `flat`; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def match_any(regexes: Sequence[str]) -> Callable[..., bool]:
    """Returns a predicate that is true for paths which one of `regexes` matches in full.

    It ignores a second argument: Flax's `ModelParamTraversal`, inside T5X, passes the parameter after its path.
    """
    patterns = [re.compile(regex) for regex in regexes]
    return lambda path, leaf=None: any(pattern.fullmatch(path) for pattern in patterns)


def split(params: PyTree, trainable_regex: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters into the disjoint trees `(trainable, frozen)`.

    Args:
      params: Nested dict of parameters.
      trainable_regex: Regular expressions; a parameter is trainable if one matches its whole `/`-joined path.

    Returns:
      Two nested dicts without empty branches. Every leaf of `params` is in exactly one of them.
    """
    is_trainable = match_any(trainable_regex)
    flat = flatten(params)
    trainable = {path: leaf for path, leaf in flat.items() if is_trainable(path)}
    frozen = {path: leaf for path, leaf in flat.items() if not is_trainable(path)}
    return unflatten(trainable), unflatten(frozen)


def merge(trainable: PyTree, frozen: PyTree) -> dict[str, Any]:
    """Returns the one tree whose leaves are those of both; the inverse of `split`."""
    return unflatten({**flatten(frozen), **flatten(trainable)})


def map_with_path(fn: Callable[[str, Any], Any], tree: PyTree) -> dict[str, Any]:
    """Returns `tree` with each leaf replaced by `fn(path, leaf)`."""
    return unflatten({path: fn(path, leaf) for path, leaf in flatten(tree).items()})
