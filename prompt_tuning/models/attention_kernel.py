"""Attention with T5's bias as one Pallas kernel for TPUs, forward and backward: logits and weights stay on the core.

Why not a library's, as of JAX 0.10.2: splash attention takes no bias. Flash attention takes one [B, N, Q, K], and its
backward pass writes that gradient too, used or not (`_flash_attention_bwd_dq`; JAX drops no output of a kernel): the
very thing that is not to be written.

Arrays keep the layout of the projections, [B, length, N * D], and a program works on as many heads as fill 128 lanes.
It sees all keys at once, so that nothing is kept for the backward pass but the arguments: maxima and sums are computed
again from the logits, which are needed anyway.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Float

# Lanes of a TPU's vector registers.
LANES = 128
# Keys up to which a program fits into the 16 MiB on a v4's core, and into the memory below that others have: compiled
# in float32 with a mask of pairs and the bias' gradient, which takes most.
SMALL_LENGTH, MAX_LENGTH = 640, 1152
_MEMORY = 48 * 2**20
# Queries whose logits are on the core at one time.
_CHUNK = 256
# Operations on each logit besides products: bias, mask, maximum, difference, sum, quotient; backward with the gradient,
# four more.
_FORWARD_OPS, _BACKWARD_OPS = 6, 10


def heads_per_program(depth: int) -> int:
    """Returns how many heads of this width (D) one program works on."""
    return max(1, LANES // depth)


def forward(
    query: Float[jax.Array, "B Q _"],
    key: Float[jax.Array, "B K _"],
    value: Float[jax.Array, "B K _"],
    bias: Float[jax.Array, "N Q K"],
    mask_bias: Float[jax.Array, "B _ K"],
    *,
    interpret: bool = False,
) -> Float[jax.Array, "B Q _"]:
    """Returns values weighted by the float32 softmax of the logits, all heads joined.

    Args:
      query: [B, Q, N * D].
      key: [B, K, N * D].
      value: [B, K, N * D].
      bias: [N, Q, K], added to the logits.
      mask_bias: [B, 1, K] or [B, Q, K], added to the logits.
      interpret: Whether to run without a TPU, slowly.
    """
    call = _call(_forward_kernel, query, key, bias, mask_bias, interpret=interpret)
    return call(
        (query, key, value, bias, mask_bias),
        outputs=(query,),
        products=2,
        ops=_FORWARD_OPS,
    )[0]


def backward(
    query: Float[jax.Array, "B Q _"],
    key: Float[jax.Array, "B K _"],
    value: Float[jax.Array, "B K _"],
    bias: Float[jax.Array, "N Q K"],
    mask_bias: Float[jax.Array, "B _ K"],
    gradient: Float[jax.Array, "B Q _"],
    *,
    with_bias: bool,
    interpret: bool = False,
) -> list[jax.Array]:
    """Returns the gradients of query, key and value, and with `with_bias` that of the bias, float32, summed over B.

    Args:
      query: See `forward`, as the next four.
      key: See there.
      value: See there.
      bias: See there.
      mask_bias: See there.
      gradient: [B, Q, N * D], by what `forward` returned.
      with_bias: Whether the bias is trained.
      interpret: See `forward`.
    """
    call = _call(_backward_kernel, query, key, bias, mask_bias, interpret=interpret)
    of_bias = (jax.ShapeDtypeStruct(bias.shape, jnp.float32),) if with_bias else ()
    return call(
        (query, key, value, bias, mask_bias, gradient),
        outputs=(query, key, value, *of_bias),
        products=5,
        ops=_BACKWARD_OPS + with_bias,
    )


def _call(
    kernel: Any,
    query: jax.Array,
    key: jax.Array,
    bias: jax.Array,
    mask_bias: jax.Array,
    *,
    interpret: bool,
) -> Any:
    """Returns what runs a kernel over groups of heads and, within a group, over examples."""
    batch, num_queries, joined = query.shape
    num_keys, num_heads = key.shape[1], bias.shape[0]
    depth = joined // num_heads
    group = heads_per_program(depth)

    # The same block for each example: it is read once, and a gradient is summed where it lies.
    of_bias = pl.BlockSpec((group, num_queries, num_keys), lambda h, b: (h, 0, 0))
    of_mask = pl.BlockSpec((1, *mask_bias.shape[1:]), lambda h, b: (b, 0, 0))

    def of_heads(array: Any) -> pl.BlockSpec:
        return pl.BlockSpec((1, array.shape[1], group * depth), lambda h, b: (b, 0, h))

    def run(arguments: tuple, *, outputs: tuple, products: int, ops: int) -> list[jax.Array]:
        logits = batch * num_heads * num_queries * num_keys
        moved = sum(math.prod(a.shape) * a.dtype.itemsize for a in (*arguments, *outputs))
        # The mask is read again for each group of heads.
        moved += (num_heads // group - 1) * mask_bias.size * mask_bias.dtype.itemsize
        run_all = pl.pallas_call(
            functools.partial(kernel, depth=depth),
            grid=(num_heads // group, batch),
            in_specs=[
                *map(of_heads, arguments[:3]),
                of_bias,
                of_mask,
                *map(of_heads, arguments[5:]),
            ],
            out_specs=[*map(of_heads, outputs[:3]), *(of_bias for _ in outputs[3:])],
            out_shape=[jax.ShapeDtypeStruct(a.shape, a.dtype) for a in outputs],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "arbitrary"),
                vmem_limit_bytes=None if num_keys <= SMALL_LENGTH else _MEMORY,
            ),
            cost_estimate=pl.CostEstimate(
                flops=logits * (2 * products * depth + ops),
                transcendentals=logits,
                bytes_accessed=moved,
            ),
            interpret=interpret,
        )
        return list(run_all(*arguments))

    return run


def _of_head(x: jax.Array, head: int, depth: int) -> jax.Array:
    """`x` [rows, lanes] with 0 for other heads: a product over all lanes costs no more than over one head's."""
    if x.shape[-1] == depth:
        return x
    lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
    return jnp.where((lane >= head * depth) & (lane < (head + 1) * depth), x, jnp.zeros_like(x))


def _product(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    """Sums over one dimension of each, in float32."""
    dims = (((contracted[0],), (contracted[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _weights(query: jax.Array, key: jax.Array, bias: Any, mask_bias: Any) -> jax.Array:
    """The softmax over all keys, [rows, K] float32."""
    logits = _product(query, key, (1, 1)) + (
        bias.astype(jnp.float32) + mask_bias.astype(jnp.float32)
    )
    unnormalized = jnp.exp(logits - jnp.max(logits, axis=1, keepdims=True))
    return unnormalized / jnp.sum(unnormalized, axis=1, keepdims=True)


def _chunks(query_ref: Any, mask_ref: Any) -> list[tuple[slice, slice]]:
    """The rows of each chunk of queries, and the rows of the mask for them."""
    length = query_ref.shape[1]
    rows = [slice(i, min(i + _CHUNK, length)) for i in range(0, length, _CHUNK)]
    return [(part, slice(0, 1) if mask_ref.shape[1] == 1 else part) for part in rows]


def _forward_kernel(query_ref, key_ref, value_ref, bias_ref, mask_ref, out_ref, *, depth: int):
    """One example, some heads: see `forward`."""
    key, value = key_ref[0], value_ref[0]
    for rows, mask_rows in _chunks(query_ref, mask_ref):
        query, mask_bias = query_ref[0, rows, :], mask_ref[0, mask_rows, :]
        out = jnp.zeros(query.shape, jnp.float32)
        for head in range(bias_ref.shape[0]):
            of_head = functools.partial(_of_head, head=head, depth=depth)
            weights = _weights(of_head(query), key, bias_ref[head, rows, :], mask_bias)
            out += of_head(_product(weights.astype(value.dtype), value, (1, 0)))
        out_ref[0, rows, :] = out.astype(out_ref.dtype)


def _backward_kernel(
    query_ref, key_ref, value_ref, bias_ref, mask_ref, gradient_ref,
    dquery_ref, dkey_ref, dvalue_ref, dbias_ref=None, *, depth: int,
):  # fmt: skip
    """One example, some heads: see `backward`."""
    key, value = key_ref[0], value_ref[0]
    dkey, dvalue = (jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    if dbias_ref is not None:

        @pl.when(pl.program_id(1) == 0)
        def _():
            dbias_ref[...] = jnp.zeros_like(dbias_ref)

    for rows, mask_rows in _chunks(query_ref, mask_ref):
        query, mask_bias = query_ref[0, rows, :], mask_ref[0, mask_rows, :]
        gradient = gradient_ref[0, rows, :]
        dquery = jnp.zeros(query.shape, jnp.float32)
        for head in range(bias_ref.shape[0]):
            of_head = functools.partial(_of_head, head=head, depth=depth)
            query_of_head, gradient_of_head = of_head(query), of_head(gradient)
            weights = _weights(query_of_head, key, bias_ref[head, rows, :], mask_bias)
            dvalue += _product(weights.astype(value.dtype), gradient_of_head, (0, 0))
            dweights = _product(gradient_of_head, value, (1, 1))
            mean = jnp.sum(weights * dweights, axis=1, keepdims=True)
            dlogits = weights * (dweights - mean)
            if dbias_ref is not None:
                dbias_ref[head, rows, :] += dlogits
            dlogits = dlogits.astype(key.dtype)
            dquery += of_head(_product(dlogits, key, (1, 0)))
            dkey += _product(dlogits, query_of_head, (0, 0))
        dquery_ref[0, rows, :] = dquery.astype(dquery_ref.dtype)
    dkey_ref[0], dvalue_ref[0] = dkey.astype(dkey_ref.dtype), dvalue.astype(dvalue_ref.dtype)
