"""Whole trees of parameters from one of T5X's layouts into the other: what loads are compared with."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.params.layouts import LAYERS_AXIS, heads_axis, is_stacked, scanned_path
from prompt_tuning.params.names import TABLE
from prompt_tuning.types import PyTree


def is_scanned(paths: Iterable[str]) -> bool:
    """Returns whether any of these parameter paths is one of the scanned layout."""
    return any(is_stacked(path) for path in paths)


def to_scanned(params: PyTree, *, num_heads: int | None = None) -> dict[str, Any]:
    """Returns parameters, nested or flat and of either layout, in the scanned one; arrays may be traced.

    The number of heads is that of the relative position tables if it is not given.
    """
    flat = tree.flatten(params)
    by_target: dict[str, dict[int | None, Any]] = {}
    for path, leaf in flat.items():
        target, layer = scanned_path(path)
        by_target.setdefault(target, {})[layer] = leaf
    out: dict[str, Any] = {path: leaf for path, leaf in flat.items() if path in by_target}
    for target, by_layer in by_target.items():
        if target in out:
            continue
        stack = target.split("/")[0]
        of_stack = [layers for path, layers in by_target.items() if path.startswith(stack)]
        count = 1 + max(n for layers in of_stack for n in layers if n is not None)
        # One table stands for every layer.
        leaves = [by_layer[None if None in by_layer else i] for i in range(count)]
        at = heads_axis(target)
        if at is not None:
            tables = (x for path, x in flat.items() if path.startswith(stack) and TABLE in path)
            heads = num_heads or next(tables).shape[0]
            leaves = [x.reshape(*x.shape[:at], heads, -1, *x.shape[at + 1 :]) for x in leaves]
        xp = np if all(isinstance(x, np.ndarray) for x in leaves) else jnp
        out[target] = xp.stack(leaves, axis=LAYERS_AXIS)
    return out if any("/" in key for key in params) else tree.unflatten(out)


def to_unscanned(params: PyTree, *, relative_bias_per_layer: bool = False) -> dict[str, Any]:
    """Returns parameters, nested or flat and of either layout, in the unscanned one; arrays may be traced."""
    out: dict[str, Any] = {}
    for path, leaf in tree.flatten(params).items():
        if not is_stacked(path):
            out[path] = leaf
            continue
        stack, _, rest = path.split("/", 2)
        at = heads_axis(path)
        for i in range(leaf.shape[LAYERS_AXIS]):
            layer = leaf[:, i]
            if at is not None:
                layer = layer.reshape(*layer.shape[:at], -1, *layer.shape[at + 2 :])
            if rest == TABLE and not relative_bias_per_layer:
                out[f"{stack}/{rest}"] = layer
            else:
                out[f"{stack}/layers_{i}/{rest}"] = layer
    return out if any("/" in key for key in params) else tree.unflatten(out)
