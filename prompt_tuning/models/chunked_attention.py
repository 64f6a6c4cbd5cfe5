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
    fits = lambda count: count * length * key.shape[2] <= CHUNK  # noqa: E731
    largest = lambda total, each: max(  # noqa: E731
        (n for n in range(1, total + 1) if total % n == 0 and fits(n * each)), default=1
    )
    if fits(heads):
        return _Shape(batch, heads, largest(batch, heads), heads)
    return _Shape(batch, heads, 1, largest(heads, 1))


def attend(
    query: Float[jax.Array, "B N Q D"],
    key: Float[jax.Array, "B N K D"],
    value: Float[jax.Array, "B N K D"],
    mask: Bool[Array, "#B 1 Q K"] | None,
    relative: Float[jax.Array, "1 N Q K"] | None,
) -> Float[jax.Array, "B N Q D"]:
    """Returns values weighted by the softmax of the masked logits plus `relative`.

    Logits, softmax and sums are float32; what is multiplied has the queries' dtype.

    Args:
      query: [B, N, Q, D].
      key: [B, N, K, D].
      value: [B, N, K, D]; dropout of weights that all queries share is dropout of its rows.
      mask: [B or 1, 1, Q, K], True where attention is allowed; None allows all.
      relative: [1, N, Q, K] added to the logits; None adds none.
    """
    if mask is not None:
        mask = jnp.broadcast_to(mask, (query.shape[0], *mask.shape[1:]))
    return _attend(query, key, value, mask, relative)


def _product(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A product in the dtype of its operands, summed in float32: a bfloat16 result would be computed in float32."""
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _weights(
    query: jax.Array, key: jax.Array, bias: Any, largest: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the exponentials [C, Q, K] of a chunk's logits less each query's largest, and that [C, Q, 1]."""
    logits = _product("cqd,ckd->cqk", query, key) + bias
    if largest is None:
        largest = jnp.max(logits, axis=-1, keepdims=True)
    return jnp.exp(logits - largest), largest


@jax.custom_vjp
def _attend(query, key, value, mask, relative):
    return _forward(query, key, value, mask, relative)[0]


def _forward(query, key, value, mask, relative):
    """Returns the output [B, N, Q, D], and each query's largest logit and inverse sum of exponentials."""
    shape = _shape_of(query, key)

    def one(chunk):
        index, query, key, value = chunk
        weights, largest = _weights(query, key, shape.bias(index, mask, relative))
        inverse = 1.0 / jnp.sum(weights, axis=-1, keepdims=True)
        out = _product("cqk,ckd->cqd", weights.astype(value.dtype), value) * inverse
        return out.astype(value.dtype), largest, inverse

    cut = tuple(shape.cut(x) for x in (query, key, value))
    chunks = (jnp.arange(len(cut[0]), dtype=jnp.int32), *cut)
    out, *statistics = jax.lax.map(one, chunks)
    return shape.join(out), tuple(statistics)


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
    shape = _shape_of(query, key)
    # A product that sums over the queries of both operands is slow. Turned round here, they are as products want them.
    turned = lambda x: shape.cut(jnp.swapaxes(x, 2, 3))  # noqa: E731

    def one(of_bias, chunk):
        index, query, query_t, key, value, gradient, gradient_t, largest, inverse = chunk
        bias = shape.bias(index, mask, relative)
        weights = _weights(query, key, bias, largest)[0] * inverse
        of_value = _product("cdq,cqk->cdk", gradient_t, weights.astype(gradient.dtype))
        of_weights = _product("cqd,ckd->cqk", gradient, value)
        mean = jnp.sum(weights * of_weights, axis=-1, keepdims=True)
        of_logits = weights * (of_weights - mean)
        if of_bias is not None:
            summed = of_logits.reshape(shape.rows, shape.heads, *of_logits.shape[1:]).sum(axis=0)
            of_bias = of_bias.at[index % shape.parts].add(summed)
        of_logits = of_logits.astype(query.dtype)
        of_query = _product("cqk,ckd->cqd", of_logits, key)
        of_key = _product("cdq,cqk->cdk", query_t, of_logits)
        return of_bias, tuple(x.astype(query.dtype) for x in (of_query, of_key, of_value))

    of_bias = None
    if learns_bias is not None:
        heads = (shape.parts, shape.heads)
        of_bias = jnp.zeros((*heads, query.shape[2], key.shape[2]), jnp.float32)
    cut = shape.cut
    chunks = (cut(query), turned(query), cut(key), cut(value), cut(gradient), turned(gradient))
    index = jnp.arange(len(chunks[0]), dtype=jnp.int32)
    of_bias, (of_query, *turned_back) = jax.lax.scan(
        one, of_bias, (index, *chunks, largest, inverse)
    )
    of_key, of_value = (jnp.swapaxes(shape.join(x), 2, 3) for x in turned_back)
    if of_bias is not None:
        of_bias = of_bias.reshape(relative.shape).astype(relative.dtype)
    return shape.join(of_query), of_key, of_value, None, of_bias


_attend.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)
