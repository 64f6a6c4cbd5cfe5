"""Products of activations and weights whose sums are float32, forwards and backwards.

XLA's CPU compiler widens a bfloat16 product with a bfloat16 result to float32; one with a float32 result, which is
rounded afterwards, is left to the processor's own bfloat16 instructions (AVX512-BF16, AMX), with the same numbers up to
the order of additions. Accelerators add up in float32 whatever the result.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning import partitioning
from prompt_tuning.types import Array


def product(
    x: Float[Array, "..."], kernel: Float[Array, "..."], axes: tuple[int, ...], dtype: Any
) -> Float[jax.Array, "..."]:
    """Returns `x` with its last axes summed over with `axes` of the kernel, and the kernel's other axes after them.

    Args:
      x: Floating; with as many last axes as `axes` has.
      kernel: Floating.
      axes: The first or the last axes of the kernel, ascending.
      dtype: Of the result. Operands narrower than it are multiplied as they are if both have one dtype, which copies no
        kernel; else they are cast to it first.
    """
    x, kernel, dtype = jnp.asarray(x), jnp.asarray(kernel), jnp.dtype(dtype)
    if x.dtype != kernel.dtype or x.dtype.itemsize > dtype.itemsize:
        x, kernel = x.astype(dtype), kernel.astype(dtype)
    is_narrow = x.dtype.itemsize < 4 and partitioning.platform() == "cpu"
    if is_narrow or x.dtype != dtype:
        return _summed_wide(x, kernel, axes, dtype)
    return jax.lax.dot_general(x, kernel, _last_with(axes, x))


def _last_with(axes: tuple[int, ...], x: Array) -> Any:
    """Dimension numbers of `x`'s last axes against `axes` of the other operand."""
    return ((tuple(range(x.ndim - len(axes), x.ndim)), axes), ((), ()))


def _wide(x: jax.Array, other: jax.Array, dimensions: Any, dtype: Any) -> jax.Array:
    wide = jax.lax.dot_general(x, other, dimensions, preferred_element_type=jnp.float32)
    return wide.astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _summed_wide(x: jax.Array, kernel: jax.Array, axes: tuple[int, ...], dtype: Any) -> jax.Array:
    return _wide(x, kernel, _last_with(axes, x), dtype)


def _forward_rule(x, kernel, axes, dtype):
    return _summed_wide(x, kernel, axes, dtype), (x, kernel)


def _backward_rule(axes, dtype, kept, gradient):
    """What JAX derives would multiply a float32 gradient with bfloat16 operands: in float32, at half the speed."""
    x, kernel = kept
    others = tuple(axis for axis in range(kernel.ndim) if axis not in axes)
    of_x = _wide(gradient, kernel.astype(dtype), _last_with(others, gradient), x.dtype)
    leading = tuple(range(x.ndim - len(axes)))
    of_kernel = _wide(x.astype(dtype), gradient, ((leading, leading), ((), ())), kernel.dtype)
    # It has what was summed over first.
    order = (*axes, *others)
    return of_x, jnp.transpose(of_kernel, [order.index(axis) for axis in range(kernel.ndim)])


_summed_wide.defvjp(_forward_rule, _backward_rule)
