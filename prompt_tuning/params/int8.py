"""Weight-only int8: frozen kernels as whole numbers from -127 to 127, with a scale for each output channel.

| float | int8 |
|---|---|
| `encoder/layers_0/mlp/wi_0/kernel` [H, F] | `…/kernel` [H, F] int8, `…/kernel_scale` [F] float32 |
| `encoder/encoder/mlp/wi_0/kernel` [H, layers, F] | `…/kernel` [H, layers, F] int8, `…/kernel_scale` [F, layers] |
| `encoder/encoder/attention/query/kernel` [H, layers, N, D] | … `…/kernel_scale` [N, layers, D] |
| `encoder/encoder/attention/out/kernel` [N, layers, D, H] | … `…/kernel_scale` [H, layers] |

A channel's scale is its largest absolute value / 127, so that a kernel differs from its int8 form by half a scale at
most. It commutes with the product, to whose output `models.layers.Dense` applies it. Everything that is not a kernel
is held as bfloat16.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.params import layouts
from prompt_tuning.types import Array

INT8 = "int8"
# Whole steps on each side of zero.
STEPS = 127
_KERNEL, _SCALE = "/kernel", "_scale"

_T = TypeVar("_T")


def is_kernel(path: str) -> bool:
    """Returns whether the parameter of this path is one that int8 holds as whole numbers."""
    return path.endswith(_KERNEL)


def scale_path(path: str) -> str:
    """Returns where the scale of a kernel is."""
    return path + _SCALE


def kernel_of(path: str) -> str:
    """Returns the kernel that a scale belongs to; `path` itself for everything that is no scale."""
    return path.removesuffix(_SCALE) if path.endswith(_KERNEL + _SCALE) else path


def held_dtype(path: str, dtype: str) -> str:
    """Returns the dtype in which a frozen parameter, or the scale of one, is held.

    Args:
      path: Its path.
      dtype: `RestoreCheckpointConfig.dtype`.
    """
    if dtype != INT8:
        return dtype
    if kernel_of(path) != path:
        return "float32"
    # The embedding table is not int8: prompts start from its rows, T5 1.0 multiplies with it, and it would save 0.12 of
    # XXL's 10.5 GiB (docs/machines/int8.md).
    return INT8 if is_kernel(path) else "bfloat16"


def with_scales(per_axis: Mapping[str, Sequence[_T]]) -> dict[str, tuple[_T, ...]]:
    """Returns what `per_axis` says of each axis of parameters (a size, a logical name), for the kernels' scales too.

    Args:
      per_axis: Path -> one value an axis.
    """
    out: dict[str, tuple[_T, ...]] = {}
    for path, values in per_axis.items():
        out[path] = tuple(values)
        if is_kernel(path):
            kept = [v for i, v in enumerate(values) if i not in _input_axes(path)]
            if layouts.is_stacked(path):
                # The layers come first among what is kept, and second in every stacked parameter.
                kept.insert(layouts.LAYERS_AXIS, kept.pop(0))
            out[scale_path(path)] = tuple(kept)
    return out


def quantize(
    path: str, kernel: Array, shardings: tuple[Any, Any] = (None, None)
) -> tuple[jax.Array, jax.Array]:
    """Returns a kernel's int8 form and its scale.

    They depend on the bfloat16 roundings of the values only: a checkpoint's float32 and bfloat16 copies give the same,
    and so does every device and every mesh.

    Args:
      path: Path of the kernel, which tells its layout.
      kernel: Float array; sharded in any way.
      shardings: Of the two results; None leaves that to the compiler.
    """
    return _compiled(_input_axes(path), layouts.is_stacked(path), shardings)(kernel)


def hold(
    params: Mapping[str, Array], dtype: str, shardings: Mapping[str, Any] | None = None
) -> dict[str, jax.Array]:
    """Returns frozen parameters by path, with the kernels' scales if `dtype` is int8.

    Args:
      params: Path -> float array.
      dtype: `RestoreCheckpointConfig.dtype`.
      shardings: Path -> sharding, of the scales too; None leaves them to the compiler.
    """
    out: dict[str, jax.Array] = {}
    for path, leaf in params.items():
        if held_dtype(path, dtype) == INT8:
            scale = scale_path(path)
            where = (None, None) if shardings is None else (shardings[path], shardings[scale])
            out[path], out[scale] = quantize(path, leaf, where)
        else:
            out[path] = jnp.asarray(leaf, jnp.dtype(held_dtype(path, dtype)))
    return out


def _input_axes(path: str) -> tuple[int, ...]:
    """The axes of a kernel that its product sums over."""
    # Stacked, the heads and their width are apart: [N, layers, D, H].
    return (0, 2) if layouts.is_stacked(path) and path.endswith("/out/kernel") else (0,)


@functools.cache
def _compiled(axes: tuple[int, ...], stacked: bool, shardings: tuple[Any, Any]) -> Any:
    """The compiled `_quantize` of one layout and place."""
    quantize = functools.partial(_quantize, axes=axes, stacked=stacked)
    return jax.jit(quantize, out_shardings=None if shardings == (None, None) else shardings)


def _quantize(kernel: Array, axes: tuple[int, ...], stacked: bool) -> tuple[jax.Array, jax.Array]:
    """The int8 form and the scale of a kernel, summed over `axes`."""
    # From the bfloat16 roundings, so that a checkpoint's float32 and bfloat16 copies become the same weights.
    wide = jnp.asarray(kernel, jnp.bfloat16).astype(jnp.float32)
    size = jnp.abs(wide)
    largest = jnp.max(size, axis=axes, keepdims=True)
    # A channel of zeros has scale 0.
    divisor = jnp.where(largest == 0, jnp.float32(1), largest)
    steps = jnp.floor(size * STEPS / divisor + jnp.float32(0.5))
    # Not every device rounds quotients alike. These products of few bits are exact, and settle what is near a half.
    steps += jnp.asarray((2 * steps + 1) * divisor <= 2 * STEPS * size, jnp.float32)
    steps -= jnp.asarray((2 * steps - 1) * divisor > 2 * STEPS * size, jnp.float32)
    scale = jnp.squeeze(largest, axes) * np.float32(1 / STEPS)
    if stacked:
        scale = jnp.moveaxis(scale, 0, layouts.LAYERS_AXIS)
    return jnp.asarray(jnp.sign(wide) * steps, jnp.int8), scale
