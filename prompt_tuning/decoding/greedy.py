"""Greedy decoding: the most likely token at every position, until every row has ended."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.types import PyTree

# (ids [B, 1] int32, cache) -> (logits [B, V] of the next token, cache of the same structure).
TokensToLogits = Callable[[jax.Array, PyTree], tuple[jax.Array, PyTree]]


class _Loop(NamedTuple):
    """What one position hands to the next."""

    position: jax.Array  # [] int32, tokens decoded so far
    token: jax.Array  # [B, 1] int32, the decoder's next input
    ids: jax.Array  # [B, T] int32
    scores: jax.Array  # [B] float32
    ended: jax.Array  # [B] bool
    cache: PyTree


def greedy_decode(
    tokens_to_logits: TokensToLogits,
    cache: PyTree,
    *,
    batch_size: int,
    max_decode_length: int,
    eos_id: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Decodes each row by its most likely token, starting from id 0.

    The loop runs under `lax.while_loop` and stops when every row has produced EOS. On equal logits the lowest id wins.

    Args:
      tokens_to_logits: One step of the decoder.
      cache: Its cache before the first position; any tree of arrays.
      batch_size: B.
      max_decode_length: T, EOS included.
      eos_id: Id that ends a row.

    Returns:
      Token ids [B, T] int32, EOS included and 0 after it, and scores [B] float32: the sum of the log-probabilities of
      the chosen tokens up to and including EOS (all T of them where none is EOS). No length penalty is applied, so a
      score equals T5X's `temperature_sample(topk=1, rescale_log_probs=False)`, and T5X's one-beam score is it divided
      by `((5 + length) / 6) ** alpha` where the row ended.
    """

    def unfinished(loop: _Loop) -> jax.Array:
        return (loop.position < max_decode_length) & ~jnp.all(loop.ended)

    def decode_position(loop: _Loop) -> _Loop:
        logits, cache = tokens_to_logits(loop.token, loop.cache)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
        best = jnp.argmax(log_probs, axis=-1, keepdims=True).astype(jnp.int32)
        log_prob = jnp.take_along_axis(log_probs, best, axis=-1)[:, 0]
        token = jnp.where(loop.ended[:, None], 0, best)
        return _Loop(
            position=loop.position + 1,
            token=token,
            ids=lax.dynamic_update_slice_in_dim(loop.ids, token, loop.position, axis=1),
            scores=loop.scores + jnp.where(loop.ended, 0.0, log_prob),
            ended=loop.ended | (token[:, 0] == eos_id),
            cache=cache,
        )

    start = _Loop(
        position=jnp.zeros((), jnp.int32),
        token=jnp.zeros((batch_size, 1), jnp.int32),
        ids=jnp.zeros((batch_size, max_decode_length), jnp.int32),
        scores=jnp.zeros((batch_size,), jnp.float32),
        ended=jnp.zeros((batch_size,), jnp.bool_),
        cache=cache,
    )
    end = lax.while_loop(unfinished, decode_position, start)
    return end.ids, end.scores
