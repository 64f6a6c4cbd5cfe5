"""Decoding of rows that began at different times, each with its own temperature, seed and end."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float, Int, UInt32

from prompt_tuning.decoding.loop import TokensToLogits
from prompt_tuning.decoding.sampling import MIN_TEMPERATURE, keep_nucleus
from prompt_tuning.types import PyTree


class Rows(NamedTuple):
    """Where each of R rows is, and what it asks for; NumPy's arrays or JAX's.

    Attributes:
      live: Whether it is decoded at all.
      token: The decoder's next input.
      position: Tokens it has so far.
      limit: Tokens at which it ends.
      temperature: Below `sampling.MIN_TEMPERATURE` the likeliest token is taken.
      top_p: See `TemperatureSample`; 1 for all tokens.
      seed: A draw depends on this and on the position, not on the row.
      tells: Whether it wants to know the likeliest tokens.
    """

    live: Bool[Any, " R"]
    token: Int[Any, " R"]
    position: Int[Any, " R"]
    limit: Int[Any, " R"]
    temperature: Float[Any, " R"]
    top_p: Float[Any, " R"]
    seed: UInt32[Any, " R"]
    tells: Bool[Any, " R"]


class Decoded(NamedTuple):
    """What some steps decoded, `steps` of K that are there; of a row that ended, what follows means nothing.

    Attributes:
      steps: How many.
      ids: [K, R] tokens, the end (EOS) included.
      log_probs: [K, R] float32, under the model, whatever the temperature.
      top_ids: [K, R, A] the likeliest tokens, best first; zeros where no row wants to know them.
      top_log_probs: [K, R, A] float32.
    """

    steps: Int[Any, ""]
    ids: Int[Any, "K R"]
    log_probs: Float[Any, "K R"]
    top_ids: Int[Any, "K R A"]
    top_log_probs: Float[Any, "K R A"]


def decode_steps(
    tokens_to_logits: TokensToLogits,
    cache: PyTree,
    rows: Rows,
    *,
    most_steps: int,
    steps: Int[Any, ""],
    stops_early: Bool[Any, ""],
    eos_id: int,
    alternatives: int,
) -> tuple[PyTree, Decoded]:
    """Decodes up to `steps` tokens of each live row, until each has ended.

    Args:
      tokens_to_logits: One step of the decoder, for R rows with positions of their own.
      cache: Its cache.
      rows: The rows.
      most_steps: K, for which there is room.
      steps: Steps to take, at most K.
      stops_early: Whether to stop as soon as any row ends.
      eos_id: Id that ends a row.
      alternatives: A, of the likeliest tokens.

    Returns:
      The cache and the tokens.
    """
    count = rows.live.shape[0]

    def unfinished(loop: tuple[Rows, PyTree, Decoded]) -> jax.Array:
        now, _, decoded = loop
        has_ended = stops_early & jnp.any(now.live != rows.live)
        return (decoded.steps < steps) & jnp.any(now.live) & ~has_ended

    def decode_position(loop: tuple[Rows, PyTree, Decoded]) -> tuple[Rows, PyTree, Decoded]:
        now, cache, decoded = loop
        logits, cache = tokens_to_logits(now.token[:, None], cache)
        made = _picked(now, logits.astype(jnp.float32), alternatives)
        kept = (
            lax.dynamic_update_index_in_dim(all_steps, new, decoded.steps, 0)
            for all_steps, new in zip(decoded[1:], made, strict=True)
        )
        token, position = made[0], now.position + jnp.int32(1)
        live = now.live & (token != eos_id) & (position < now.limit)
        then = now._replace(live=live, token=token, position=position)
        return then, cache, Decoded(decoded.steps + jnp.int32(1), *kept)

    shape = (most_steps, count)
    empty = Decoded(
        jnp.zeros((), jnp.int32),
        jnp.zeros(shape, jnp.int32),
        jnp.zeros(shape, jnp.float32),
        jnp.zeros((*shape, alternatives), jnp.int32),
        jnp.zeros((*shape, alternatives), jnp.float32),
    )
    start = Rows(*map(jnp.asarray, rows))
    _, cache, decoded = lax.while_loop(unfinished, decode_position, (start, cache, empty))
    return cache, decoded


def _picked(rows: Rows, logits: jax.Array, alternatives: int) -> tuple[jax.Array, ...]:
    """The next token of each row of logits [R, V], its log-probability, and those of the likeliest ones."""
    total = jax.nn.logsumexp(logits, axis=-1)
    is_drawn = rows.live & (rows.temperature > MIN_TEMPERATURE)
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # What no row asks for is not computed: a draw takes a number for each token of the vocabulary, a nucleus a sort.
    token = lax.cond(
        jnp.any(is_drawn),
        lambda: jnp.where(is_drawn, _drawn(rows, is_drawn, logits), likeliest),
        lambda: likeliest,
    )
    log_prob = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - total

    def told() -> tuple[jax.Array, jax.Array]:
        best, ids = lax.top_k(logits, alternatives)
        return ids.astype(jnp.int32), best - total[:, None]

    nothing = (jnp.zeros((len(total), alternatives), dtype) for dtype in (jnp.int32, jnp.float32))
    nothing = tuple(nothing)
    return token, log_prob, *lax.cond(jnp.any(rows.live & rows.tells), told, lambda: nothing)


def _drawn(rows: Rows, is_drawn: jax.Array, logits: jax.Array) -> jax.Array:
    """A token of each row, drawn with its own key; of rows that draw nothing, any."""
    temperature = jnp.where(is_drawn, rows.temperature, jnp.float32(1))
    # Rounding may leave the sum of all probabilities short of 1.
    top_p = jnp.where(rows.top_p < 1, rows.top_p, jnp.float32(jnp.inf))[:, None]
    scaled = lax.cond(
        jnp.any(is_drawn & (rows.top_p < 1)),
        lambda x: keep_nucleus(x, top_p),
        lambda x: x,
        logits / temperature[:, None],
    )

    def draw(seed: jax.Array, position: jax.Array, row: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed), position)
        return jax.random.categorical(key, row).astype(jnp.int32)

    return jax.vmap(draw)(rows.seed, rows.position, scaled)
