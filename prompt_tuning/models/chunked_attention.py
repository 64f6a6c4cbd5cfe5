"""Attention on a CPU: a chunk of rows or heads at a time, whose weights stay in the processor's cache.

Weights [B, N, Q, K] are never written as a whole. The backward pass computes a chunk's weights again from queries, keys
and each query's largest logit and sum, which are all that is kept.

Source: Dao et al. 2022, arXiv 2205.14135, for the backward pass. Differs: a chunk holds all keys of its queries, and no
  softmax is put together from parts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from prompt_tuning import partitioning
from prompt_tuning.models import masks
from prompt_tuning.types import Array

# Logits of a chunk at most, 3 MB in float32: with more, or with one head alone, it takes longer (docs/LOG.md).
CHUNK = 750_000


def pays() -> bool:
    """Returns whether attention is to go by chunks: on one CPU device, since devices share batch and heads."""
    return partitioning.platform() == "cpu" and jax.sharding.get_abstract_mesh().size <= 1


class _Shape(NamedTuple):
    """How [B, N, …] is cut into chunks of `rows` rows with `heads` heads each; one of them is all there is in a row."""

    batch: int
    all_heads: int
    rows: int
    heads: int

    @property
    def parts(self) -> int:
        """Chunks of one row, 1 where a chunk has whole rows."""
        return self.all_heads // self.heads

    def cut(self, x: jax.Array) -> jax.Array:
        """Returns [B, N, …] as [chunks, rows * heads, …]."""
        return x.reshape(-1, self.rows * self.heads, *x.shape[2:])

    def join(self, x: jax.Array) -> jax.Array:
        """The inverse of `cut`."""
        return x.reshape(self.batch, self.all_heads, *x.shape[2:])

    def bias(self, index: jax.Array, mask: jax.Array | None, relative: jax.Array | None) -> Any:
        """Returns what is added to the logits of a chunk, [rows * heads, Q, K] float32, or 0."""
        take = functools.partial(jax.lax.dynamic_index_in_dim, keepdims=False)
        bias = jnp.float32(0)
        if mask is not None:
            of_rows = mask.reshape(-1, self.rows, *mask.shape[1:])
            bias = bias + masks.mask_bias(take(of_rows, index // self.parts))
        if relative is not None:
            of_heads = relative.reshape(1, self.parts, self.heads, *relative.shape[2:])
            bias = bias + take(of_heads, index % self.parts, axis=1).astype(jnp.float32)
        if not bias.ndim:
            return bias
        shape = (self.rows, self.heads, *bias.shape[2:])
        return jnp.broadcast_to(bias, shape).reshape(-1, *bias.shape[2:])


def _shape_of(query: jax.Array, key: jax.Array) -> _Shape:
    """Returns the largest chunks that divide the batch, or the heads of a row, and are not above `CHUNK`."""
    batch, heads, length = query.shape[:3]
    fits = lambda count: count * length * key.shape[3] <= CHUNK  # noqa: E731
    largest = lambda total, each: max(  # noqa: E731
        (n for n in range(1, total + 1) if total % n == 0 and fits(n * each)), default=1
    )
    if fits(heads):
        return _Shape(batch, heads, largest(batch, heads), heads)
    return _Shape(batch, heads, 1, largest(heads, 1))


def attend(
    query: Float[jax.Array, "B N Q D"],
    key: Float[jax.Array, "B N D K"],
    value: Float[jax.Array, "B N D K"],
    mask: Bool[Array, "#B 1 Q K"] | None,
    relative: Float[jax.Array, "1 N Q K"] | None,
) -> Float[jax.Array, "B N Q D"]:
    """Returns values weighted by the softmax of the masked logits plus `relative`.

    Logits, softmax and sums are float32; what is multiplied has the queries' dtype.

    Args:
      query: [B, N, Q, D].
      key: [B, N, D, K].
      value: [B, N, D, K]; dropout of weights that all queries share is dropout of its keys.
      mask: [B or 1, 1, Q, K], True where attention is allowed; None allows all.
      relative: [1, N, Q, K] added to the logits; None adds none.
    """
    if mask is not None:
        mask = jnp.broadcast_to(mask, (query.shape[0], *mask.shape[1:]))
    return _attend(query, key, value, mask, relative)


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product in the dtype of its operands, summed in float32 (`products.py`)."""
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


# XLA's CPU compiler widens a bfloat16 array as a whole for each slice of it inside a loop, but not whole numbers.
def _bits(x: jax.Array) -> jax.Array:
    return x if x.dtype.itemsize == 4 else jax.lax.bitcast_convert_type(x, jnp.uint16)


def _floats(bits: jax.Array, dtype: Any) -> jax.Array:
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


def _read(bits: jax.Array, index: jax.Array, dtype: Any) -> jax.Array:
    return _floats(jax.lax.dynamic_index_in_dim(bits, index, keepdims=False), dtype)


def _write(bits: jax.Array, index: jax.Array, chunk: jax.Array, dtype: Any) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(bits, _bits(chunk.astype(dtype)), index, 0)


def _exponentials(
    query: jax.Array, key: jax.Array, bias: Any, largest: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the exponentials [C, Q, K] of a chunk's logits less each query's largest, and that [C, Q, 1]."""
    logits = _product("cqd,cdk->cqk", query, key) + bias
    if largest is None:
        largest = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.exp(logits - largest), largest


@jax.custom_vjp
def _attend(query, key, value, mask, relative):
    return _forward(query, key, value, mask, relative)[0]


def _forward(query, key, value, mask, relative):
    """Returns the output [B, N, Q, D], and each query's largest logit and inverse sum of exponentials."""
    shape, dtype = _shape_of(query, key), query.dtype
    queries, keys, values = (_bits(shape.cut(x)) for x in (query, key, value))

    def one(out, index):
        query, key, value = (_read(x, index, dtype) for x in (queries, keys, values))
        weights, largest = _exponentials(query, key, shape.bias(index, mask, relative))
        inverse = 1.0 / jnp.sum(weights, axis=-1, keepdims=True)
        read = _product("cqk,cdk->cqd", weights.astype(dtype), value) * inverse
        return _write(out, index, read, dtype), (largest, inverse)

    # The output is written over a copy of the queries. Zeros would not depend on anything, and those of all layers
    # would be there from the beginning.
    out, statistics = jax.lax.scan(one, queries, jnp.arange(len(queries), dtype=jnp.int32))
    return shape.join(_floats(out, dtype)), statistics


def _forward_rule(query, key, value, mask, relative):
    learns_bias = relative is not None and relative.perturbed
    arguments = jax.tree.map(
        lambda x: x.value,
        (query, key, value, mask, relative),
        is_leaf=lambda x: isinstance(x, jax.custom_derivatives.CustomVJPPrimal),
    )
    out, statistics = _forward(*arguments)
    # A flag among arrays: None or not.
    return out, (arguments, statistics, () if learns_bias else None)


def _backward_rule(kept, gradient):
    (query, key, value, mask, relative), (largest, inverse), learns_bias = kept
    if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
        gradient = jnp.zeros(gradient.shape, gradient.dtype)
    # Nothing of this is to be made before the gradient is there, and kept until then.
    query, gradient = jax.lax.optimization_barrier((query, gradient))
    shape, dtype = _shape_of(query, key), query.dtype
    cut = lambda x: _bits(shape.cut(x))  # noqa: E731
    # A product that sums over the queries of both operands is slow: these are turned round for it, once for all chunks.
    gradients, *turned = (cut(gradient), *(cut(jnp.swapaxes(x, 2, 3)) for x in (query, gradient)))

    def one(carry, chunk):
        (queries, keys, values), of_bias = carry
        index, largest, inverse = chunk
        query, key, value, gradient, query_t, gradient_t = (
            _read(x, index, dtype) for x in (queries, keys, values, gradients, *turned)
        )
        bias = shape.bias(index, mask, relative)
        weights = _exponentials(query, key, bias, largest)[0] * inverse
        of_value = _product("cdq,cqk->cdk", gradient_t, weights.astype(dtype))
        of_weights = _product("cqd,cdk->cqk", gradient, value)
        mean = jnp.sum(weights * of_weights, axis=-1, keepdims=True)
        of_logits = weights * (of_weights - mean)
        if of_bias is not None:
            summed = of_logits.reshape(shape.rows, shape.heads, *of_logits.shape[1:]).sum(axis=0)
            of_bias = of_bias.at[index % shape.parts].add(summed)
        of_logits = of_logits.astype(dtype)
        of_query = _product("cqk,cdk->cqd", of_logits, key)
        of_key = _product("cdq,cqk->cdk", query_t, of_logits)
        # Each gradient is written over what it is the gradient of, which is not read again.
        written = tuple(
            _write(bits, index, made, dtype)
            for bits, made in ((queries, of_query), (keys, of_key), (values, of_value))
        )
        return (written, of_bias), None

    of_bias = None
    if learns_bias is not None:
        heads = (shape.parts, shape.heads)
        of_bias = jnp.zeros((*heads, query.shape[2], key.shape[3]), jnp.float32)
    chunks = (jnp.arange(len(gradients), dtype=jnp.int32), largest, inverse)
    (gradients, of_bias), _ = jax.lax.scan(
        one, (tuple(cut(x) for x in (query, key, value)), of_bias), chunks
    )
    if of_bias is not None:
        of_bias = of_bias.reshape(relative.shape).astype(relative.dtype)
    return *(shape.join(_floats(x, dtype)) for x in gradients), None, of_bias


_attend.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
