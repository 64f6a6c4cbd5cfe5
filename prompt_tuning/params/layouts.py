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
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import core

from prompt_tuning import tree
from prompt_tuning.errors import CheckpointError
from prompt_tuning.types import Array, PyTree

# Where T5X puts the layers axis of a stacked parameter.
LAYERS_AXIS = 1

_SCANNED = re.compile(r"(encoder|decoder)/\1/(.+)")
_UNSCANNED_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")
_UNSCANNED_TABLE = re.compile(r"(encoder|decoder)/(relpos_bias/rel_embedding)")
_TABLE = "relpos_bias/rel_embedding"
_HEADS_FIRST = re.compile(r".*attention/(out/kernel|(query|key|value)/kernel_scale)")
_HEADS_SECOND = re.compile(r".*attention/(query|key|value)/kernel")


def is_scanned(paths: Iterable[str]) -> bool:
    """Returns whether any of these parameter paths is one of the scanned layout."""
    return any(_SCANNED.fullmatch(path) for path in paths)


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
    if rest == _TABLE and not relative_bias_per_layer:
        return [f"{stack}/{_TABLE}"]
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


def split_layers(
    path: str, leaf: Array, *, relative_bias_per_layer: bool = False
) -> dict[str, Array]:
    """Returns the unscanned parameters that a scanned one holds.

    Args:
      path: Path in the scanned layout.
      leaf: The array; may be traced.
      relative_bias_per_layer: Whether each layer has a relative position table of its own.

    Returns:
      Path to array, layer by layer; `{path: leaf}` for a parameter of both layouts.

    Raises:
      CheckpointError: If the layers' relative position tables differ and `relative_bias_per_layer` is False.
    """
    if not is_stacked(path):
        return {path: leaf}
    num_layers = leaf.shape[LAYERS_AXIS]
    paths = unscanned_paths(path, num_layers, relative_bias_per_layer=relative_bias_per_layer)
    layers = [leaf[:, i] for i in range(num_layers)]
    if path.endswith(_TABLE) and not relative_bias_per_layer:
        _check_same_tables(path, layers)
        return {paths[0]: layers[0]}
    return {p: _join_heads(p, layer) for p, layer in zip(paths, layers, strict=True)}


def stack_layers(path: str, layers: Sequence[Array], *, num_layers: int, num_heads: int) -> Array:
    """Returns the scanned parameter made of unscanned ones; the inverse of `split_layers`.

    Args:
      path: Path in the scanned layout.
      layers: The arrays of `unscanned_paths(path, num_layers)`; of a relative position table, one to be repeated or
        one for each layer.
      num_layers: Layers of the stack.
      num_heads: N, attention heads.

    Returns:
      An array of the same kind (numpy or JAX); `layers[0]` for a parameter of both layouts.
    """
    if not is_stacked(path):
        assert len(layers) == 1, path
        return layers[0]
    xp = np if all(isinstance(layer, np.ndarray) for layer in layers) else jnp
    if path.endswith(_TABLE) and len(layers) == 1:
        layers = [layers[0]] * num_layers
    assert len(layers) == num_layers, path
    return xp.stack([_part_heads(path, layer, num_heads) for layer in layers], axis=LAYERS_AXIS)


def to_unscanned(params: PyTree, *, relative_bias_per_layer: bool = False) -> dict[str, Any]:
    """Returns parameters in the unscanned layout.

    Args:
      params: Nested or flat (`/`-joined paths) dict of arrays in either layout; may be traced.
      relative_bias_per_layer: Whether each layer has a relative position table of its own.

    Returns:
      A dict of the same form, nested or flat.

    Raises:
      CheckpointError: If the layers' relative position tables differ and `relative_bias_per_layer` is False.
    """
    flat = tree.flatten(params)
    out: dict[str, Any] = {}
    for path, leaf in flat.items():
        out.update(split_layers(path, leaf, relative_bias_per_layer=relative_bias_per_layer))
    return out if _is_flat(params) else tree.unflatten(out)


def to_scanned(params: PyTree, *, num_heads: int | None = None) -> dict[str, Any]:
    """Returns parameters in the scanned layout.

    Args:
      params: Nested or flat (`/`-joined paths) dict of arrays in either layout; may be traced.
      num_heads: N, attention heads; read from the relative position tables if None.

    Returns:
      A dict of the same form, nested or flat.

    Raises:
      CheckpointError: If a layer is missing, or the number of heads is neither given nor to be found.
    """
    flat = tree.flatten(params)
    stacks: dict[str, dict[int, Any]] = {}
    shared: set[str] = set()
    out: dict[str, Any] = {}
    for path, leaf in flat.items():
        target, layer = scanned_path(path)
        if target == path:
            out[path] = leaf
            continue
        stacks.setdefault(target, {})[layer or 0] = leaf
        if layer is None:
            shared.add(target)
    num_layers = {stack: _num_layers(stack, stacks) for stack in ("encoder", "decoder")}
    for target, by_layer in stacks.items():
        stack = target.split("/")[0]
        count = 1 if target in shared else num_layers[stack]
        if sorted(by_layer) != list(range(count)):
            raise CheckpointError(
                f"Layers of {target} are missing",
                got=f"layers {sorted(by_layer)}",
                expected=f"layers 0 to {count - 1}",
                fix="use a whole checkpoint",
            )
        heads = num_heads or _num_heads(flat, stack)
        leaves = [by_layer[i] for i in range(count)]
        out[target] = stack_layers(target, leaves, num_layers=num_layers[stack], num_heads=heads)
    return out if _is_flat(params) else tree.unflatten(out)


def _is_flat(params: Mapping[str, Any]) -> bool:
    """Returns whether a dict has paths for keys rather than names."""
    return any("/" in key for key in params)


def _num_layers(stack: str, stacks: Mapping[str, Mapping[int, Any]]) -> int:
    """Returns the layers of a stack, 0 if it has none here."""
    numbers = (n for path, by_layer in stacks.items() if path.startswith(stack) for n in by_layer)
    return max(numbers, default=-1) + 1


def _num_heads(flat: Mapping[str, Any], stack: str) -> int:
    """Returns the attention heads as the stack's relative position table has them."""
    paths = (f"{stack}/{_TABLE}", f"{stack}/layers_0/{_TABLE}", f"{stack}/{stack}/{_TABLE}")
    path = next((path for path in paths if path in flat), None)
    if path is None:
        raise CheckpointError(
            "The number of attention heads is unknown",
            got=f"no {paths[0]}",
            expected="a relative position table or num_heads",
            fix="pass num_heads",
        )
    return flat[path].shape[0]


def _join_heads(path: str, layer: Array) -> Array:
    """Returns one layer's parameter with heads and head_dim joined, where it has them."""
    at = heads_axis(path)
    return layer if at is None else layer.reshape(*layer.shape[:at], -1, *layer.shape[at + 2 :])


def _part_heads(path: str, layer: Array, num_heads: int) -> Array:
    """Returns one layer's parameter with heads and head_dim apart, where it has them."""
    at = heads_axis(path)
    if at is None:
        return layer
    return layer.reshape(*layer.shape[:at], num_heads, -1, *layer.shape[at + 1 :])


def _check_same_tables(path: str, layers: Sequence[Array]) -> None:
    """Raises CheckpointError if the layers' tables differ; traced values cannot be looked at."""
    if isinstance(layers[0], core.Tracer):
        return
    xp = np if isinstance(layers[0], np.ndarray) else jnp
    for i, layer in enumerate(layers):
        if not bool(xp.array_equal(layer, layers[0])):
            raise CheckpointError(
                "The unscanned layout has one relative position table for all layers",
                got=f"{path} whose layer {i} differs from layer 0",
                expected="the same table in every layer",
                fix="bind network.T5Config.scan_layers = True for this checkpoint (its layers were trained apart), or"
                " network.T5Config.relative_bias_per_layer = True",
            )
