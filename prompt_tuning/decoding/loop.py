"""Decoding token by token, under whatever rule picks the next one."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.types import PyTree

# (ids [R, 1] int32, cache) -> (logits [R, V] of the next token, cache of the same structure).
TokensToLogits = Callable[[jax.Array, PyTree], tuple[jax.Array, PyTree]]
# (rng or None, logits [R, V] float32) -> (ids [R] int32, their log-probabilities [R] float32).
Pick = Callable[[jax.Array | None, jax.Array], tuple[jax.Array, jax.Array]]


class DecodeFn(Protocol):
    """A way to decode as a small frozen value, which a config names: K = `num_decodes` sequences for each row."""

    @property
    def num_decodes(self) -> int:
        """K."""
        ...

    def __call__(
        self,
        tokens_to_logits: TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int,
        cache_batch_axis: int,
        start_id: int,
        pad_id: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes every row.

        Args:
          tokens_to_logits: One step of the decoder, for B * K rows: row `b * K + k` is sequence k of batch row b, so
            that the K of them can share what it closes over (the encoded inputs).
          cache: Its cache before the first position, for B rows; it is repeated here.
          batch_size: B.
          max_decode_length: T, EOS included.
          eos_id: Id that ends a sequence.
          cache_batch_axis: Axis of the batch in the cache: 0, or 1 where layers are scanned. Leaves with no such axis
            (positions) are shared by all rows.
          start_id: Id that each sequence starts from.
          pad_id: Id that stands behind the end of a sequence.

        Returns:
          Token ids [B, K, T] int32, EOS included and padding after it, and scores [B, K] float32, ascending: the best
          is last.
        """
        ...


class _Loop(NamedTuple):
    """What one position hands to the next."""

    position: jax.Array  # [] int32, tokens decoded so far
    token: jax.Array  # [R, 1] int32, the decoder's next inputs
    ids: jax.Array  # [R, T] int32
    scores: jax.Array  # [R] float32
    ended: jax.Array  # [R] bool
    rng: jax.Array | None
    cache: PyTree


def decode_rows(
    tokens_to_logits: TokensToLogits,
    cache: PyTree,
    pick: Pick,
    *,
    rows: int,
    max_decode_length: int,
    eos_id: int,
    start_id: int = 0,
    pad_id: int = 0,
    rng: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Decodes rows that do not look at each other, under `lax.while_loop`, until each has produced EOS.

    Args:
      tokens_to_logits: One step of the decoder, for R rows.
      cache: Its cache before the first position; any tree of arrays.
      pick: Chooses the next token of each row.
      rows: R.
      max_decode_length: T, EOS included.
      eos_id: Id that ends a row.
      start_id: Id that a row starts from.
      pad_id: Id that stands behind the end of a row.
      rng: Key that `pick` gets a part of at every position; None where it draws nothing.

    Returns:
      Token ids [R, T] int32, EOS included and padding after it, and scores [R] float32: the sum of the
      log-probabilities of the tokens up to and including EOS (all T of them where none is EOS), without a length
      penalty.
    """

    def unfinished(loop: _Loop) -> jax.Array:
        return (loop.position < max_decode_length) & ~jnp.all(loop.ended)

    def decode_position(loop: _Loop) -> _Loop:
        draw_rng, rng = (None, None) if loop.rng is None else jax.random.split(loop.rng)
        logits, cache = tokens_to_logits(loop.token, loop.cache)
        picked, log_prob = pick(draw_rng, logits.astype(jnp.float32))
        token = jnp.where(loop.ended, pad_id, picked)[:, None]
        return _Loop(
            position=loop.position + 1,
            token=token,
            ids=lax.dynamic_update_slice_in_dim(loop.ids, token, loop.position, axis=1),
            scores=loop.scores + jnp.where(loop.ended, 0.0, log_prob),
            ended=loop.ended | (token[:, 0] == eos_id),
            rng=rng,
            cache=cache,
        )

    start = _Loop(
        position=jnp.zeros((), jnp.int32),
        token=jnp.full((rows, 1), start_id, jnp.int32),
        ids=jnp.full((rows, max_decode_length), pad_id, jnp.int32),
        scores=jnp.zeros((rows,), jnp.float32),
        ended=jnp.zeros((rows,), jnp.bool_),
        rng=rng,
        cache=cache,
    )
    end = lax.while_loop(unfinished, decode_position, start)
    return end.ids, end.scores
