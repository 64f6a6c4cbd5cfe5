"""T5X's two layouts of a model's parameters, and the conversion between them.

| unscanned | scanned |
|---|---|
| `encoder/layers_{i}/mlp/wi_0/kernel` [H, F] | `encoder/encoder/mlp/wi_0/kernel` [H, layers, F] |
| `encoder/layers_{i}/attention/query/kernel` [H, N*D] | `encoder/encoder/attention/query/kernel` [H, layers, N, D] |
| `encoder/layers_{i}/attention/out/kernel` [N*D, H] | `encoder/encoder/attention/out/kernel` [N, layers, D, H] |
| `encoder/layers_{i}/pre_mlp_layer_norm/scale` [H] | `encoder/encoder/pre_mlp_layer_norm/scale` [H, layers] |
| `encoder/layers_{i}/mlp/wi_0/kernel_scale` [F] | `encoder/encoder/mlp/wi_0/kernel_scale` [F, layers] |
| `encoder/layers_{i}/attention/key/kernel_scale` [N*D] | `encoder/encoder/attention/key/kernel_scale` [N, layers, D] |
| `encoder/relpos_bias/rel_embedding` [N, buckets] | `encoder/encoder/relpos_bias/rel_embedding` [N, layers, buckets] |

and likewise for `decoder`; kernels have scales in int8 only (`params/int8.py`). Everything else has one form.
Conversion moves values, it never changes them. The relative position table is one per stack unscanned and one per layer
scanned: it is repeated in the one direction, and has to be the same in every layer in the other. A model with a
relative bias per layer (UMT5) has a table of its own in every layer of both layouts, unscanned
`encoder/layers_{i}/relpos_bias/rel_embedding`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import TABLE

# Where T5X puts the layers axis of a stacked parameter.
LAYERS_AXIS = 1

_SCANNED = re.compile(r"(encoder|decoder)/\1/(.+)")
_UNSCANNED_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")
_UNSCANNED_TABLE = re.compile(rf"(encoder|decoder)/({TABLE})")
_HEADS_FIRST = re.compile(r".*attention/(out/kernel|(query|key|value)/kernel_scale)")
_HEADS_SECOND = re.compile(r".*attention/(query|key|value)/kernel")


def is_stacked(path: str) -> bool:
    """Returns whether the parameter of this path has a layers axis (`LAYERS_AXIS`)."""
    return _SCANNED.fullmatch(path) is not None


def heads_axis(path: str) -> int | None:
    """Returns where a layer of a stacked parameter has its heads, apart from their width, which follows.

    It is None for a parameter without heads. The layer's unscanned form has both joined there.
    """
    if _HEADS_SECOND.fullmatch(path):
        return 1
    return 0 if _HEADS_FIRST.fullmatch(path) else None


def memory_order(path: str, ndim: int) -> tuple[int, ...] | None:
    """Returns the axes of a stacked parameter from the slowest to the fastest, as a loop over its layers reads them.

    It is the order that the TPU compiler chooses where it is free to: layers first, and what a product sums over last
    where heads and their width are apart. None for a parameter of both layouts.
    """
    if not is_stacked(path):
        return None
    # In the order of T5X's shapes the compiler kept a reordered copy of all stacked weights once microbatches made a
    # second loop around the layers: XXL on one v6e chip was refused for 37 GiB of temporaries (docs/machines/tpu.md).
    others = [axis for axis in range(ndim) if axis != LAYERS_AXIS]
    if _HEADS_SECOND.fullmatch(path):
        others = [*others[1:], others[0]]
    return (LAYERS_AXIS, *others)


def unscanned_paths(
    path: str, num_layers: int, *, relative_bias_per_layer: bool = False
) -> list[str]:
    """Returns the unscanned parameters that make up a scanned one, in layer order.

    Args:
      path: Path in the scanned layout.
      num_layers: Layers of its stack.
      relative_bias_per_layer: Whether each layer has a relative position table of its own.

    Returns:
      `num_layers` paths; one path for a relative position table that layers share; `[path]` for a parameter of both
      layouts.
    """
    match = _SCANNED.fullmatch(path)
    if match is None:
        return [path]
    stack, rest = match.groups()
    if rest == TABLE and not relative_bias_per_layer:
        return [f"{stack}/{TABLE}"]
    return [f"{stack}/layers_{i}/{rest}" for i in range(num_layers)]


def all_unscanned_paths(path: str, num_layers: int) -> list[list[str]]:
    """Returns the forms that a scanned parameter may have unscanned: two for a relative position table, else one."""
    forms = [
        unscanned_paths(path, num_layers, relative_bias_per_layer=per_layer)
        for per_layer in (False, True)
    ]
    return forms if forms[0] != forms[1] else forms[:1]


def scanned_path(path: str) -> tuple[str, int | None]:
    """Returns where an unscanned parameter is in the scanned layout: its path there and its layer.

    The layer is None for a parameter of both layouts and for a relative position table that every layer repeats.
    """
    if match := _UNSCANNED_LAYER.fullmatch(path):
        stack, layer, rest = match.groups()
        return f"{stack}/{stack}/{rest}", int(layer)
    if match := _UNSCANNED_TABLE.fullmatch(path):
        stack, rest = match.groups()
        return f"{stack}/{stack}/{rest}", None
    return path, None


def layer_shape(path: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape that one layer of a stacked parameter has in the unscanned layout."""
    rest = [size for axis, size in enumerate(shape) if axis != LAYERS_AXIS]
    heads = heads_axis(path)
    # A stored array may be of any shape.
    if heads is not None and len(rest) > heads + 1:
        rest[heads : heads + 2] = [rest[heads] * rest[heads + 1]]
    return tuple(rest)


def split_layers(path: str, leaf: np.ndarray) -> list[np.ndarray]:
    """Returns the layers of a parameter, each as the unscanned layout has it; `[leaf]` if it is not stacked."""
    if not is_stacked(path):
        return [leaf]
    shape = layer_shape(path, leaf.shape)
    return [layer.reshape(shape) for layer in np.moveaxis(leaf, LAYERS_AXIS, 0)]


def take_apart(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns scanned parameters in the unscanned layout of a model with a relative bias per layer; traceable."""
    out: dict[str, Any] = {}
    for path, leaf in params.items():
        if not is_stacked(path):
            out[path] = leaf
            continue
        shape = layer_shape(path, leaf.shape)
        names = unscanned_paths(path, leaf.shape[LAYERS_AXIS], relative_bias_per_layer=True)
        for i, name in enumerate(names):
            layer = jax.lax.index_in_dim(leaf, i, LAYERS_AXIS, keepdims=False)
            out[name] = layer.reshape(shape)
    return out


def scanned_shapes(
    shapes: Mapping[str, tuple[int, ...]], head_dims: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that a model's parameters have in the scanned layout.

    Args:
      shapes: Path -> shape, in either layout.
      head_dims: Width of a head by stack, for a model without relative position tables (T5Gemma).

    Raises:
      CheckpointError: If a layer is missing, or the number of heads is not to be found.
    """
    out: dict[str, tuple[int, ...]] = {}
    layers: dict[str, dict[int, tuple[int, ...]]] = {}
    for path, shape in shapes.items():
        target, layer = scanned_path(path)
        if target == path:
            out[path] = shape
        else:
            layers.setdefault(target, {})[layer or 0] = shape
    for target, by_layer in layers.items():
        stack = target.split("/")[0]
        of_stack = [numbers for path, numbers in layers.items() if path.startswith(stack)]
        count = 1 + max(number for numbers in of_stack for number in numbers)
        # A table that all layers share is there once.
        stored = 1 if target.endswith(TABLE) and f"{stack}/{TABLE}" in shapes else count
        if sorted(by_layer) != list(range(stored)):
            raise CheckpointError(
                f"Layers of {target} are missing",
                got=f"layers {sorted(by_layer)}",
                expected=f"layers 0 to {stored - 1}",
                fix="use a whole checkpoint",
            )
        shape = list(by_layer[0])
        at = heads_axis(target)
        if at is not None:
            # A relative position table has a row for each head.
            tables = (shape[0] for path, shape in shapes.items() if path.endswith(TABLE))
            heads = shape[at] // head_dims[stack] if head_dims else next(tables, None)
            if heads is None:
                raise CheckpointError(
                    "The number of attention heads is unknown",
                    got=f"no {stack}/{TABLE}",
                    expected="a relative position table in each stack",
                    fix="use a whole checkpoint",
                )
            shape[at : at + 1] = [heads, shape[at] // heads]
        shape.insert(LAYERS_AXIS, count)
        out[target] = tuple(shape)
    return out
