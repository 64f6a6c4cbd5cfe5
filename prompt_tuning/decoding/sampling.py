"""Sampling with a temperature, from all tokens, the k most likely ones, or the nucleus of mass p."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.decoding.cache import expand_batch
from prompt_tuning.decoding.greedy import TokensToLogits
from prompt_tuning.errors import ConfigError
from prompt_tuning.types import PyTree

# Logit of a token that may not be drawn; T5X's value, so that log-probabilities agree.
_EXCLUDED = -1.0e7
# Below this the most likely token is taken: dividing by the temperature would overflow.
_MIN_TEMPERATURE = 1e-4


class _Loop(NamedTuple):
    """What one position hands to the next; R = B * num_decodes rows."""

    position: jax.Array  # [] int32, tokens decoded so far
    token: jax.Array  # [R, 1] int32, the decoder's next inputs
    ids: jax.Array  # [R, T] int32
    scores: jax.Array  # [R] float32
    ended: jax.Array  # [R] bool
    rng: jax.Array
    cache: PyTree


def temperature_sample(
    tokens_to_logits: TokensToLogits,
    cache: PyTree,
    *,
    batch_size: int,
    max_decode_length: int,
    eos_id: int = 1,
    decode_rng: jax.Array | None = None,
    num_decodes: int = 1,
    temperature: float = 1.0,
    topk: int = 1,
    topp: float = 0.0,
    rescale_log_probs: bool = True,
    cache_batch_axis: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Draws `num_decodes` (K) sequences for each row, token by token, starting from id 0.

    Args:
      tokens_to_logits: One step of the decoder, for B * K rows, in the order that `beam_search` describes.
      cache: Its cache before the first position, for B rows; it is repeated here.
      batch_size: B.
      max_decode_length: T, EOS included.
      eos_id: Id that ends a sequence.
      decode_rng: Key; None for `PRNGKey(0)`.
      num_decodes: K.
      temperature: Logits are divided by it. Below 1e-4 the most likely token is taken.
      topk: Draw from this many most likely tokens (more on ties); 0 from all. T5X's default of 1 is greedy.
      topp: Draw from the fewest most likely tokens whose probabilities reach this sum; 0 from all.
      rescale_log_probs: Score tokens by the distribution they were drawn from (with `topk=1`, or a temperature below
        1e-4, every score is 0); otherwise by the model's own.
      cache_batch_axis: Axis of the batch in the cache: 0, or 1 where layers are scanned.

    Returns:
      Token ids [B, K, T] int32, EOS included and 0 after it, and scores [B, K] float32, ascending: the best is last. A
      score is the sum of log-probabilities up to and including EOS, without a length penalty.

    Raises:
      ConfigError: Both `topk` and `topp` are set, or one is out of range.

    Source:
      t5x:t5x/decoding.py (`temperature_sample`): one key gives T5X's draws. Differs: no forced prefix.
    """
    check_choice(topk, topp)
    rows = batch_size * num_decodes

    def step(loop: _Loop) -> _Loop:
        draw_rng, rng = jax.random.split(loop.rng)
        logits, cache = tokens_to_logits(loop.token, loop.cache)
        drawn, log_prob = _draw(
            draw_rng, logits.astype(jnp.float32), temperature, topk, topp, rescale_log_probs
        )
        token = jnp.where(loop.ended, 0, drawn)[:, None]
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
        token=jnp.zeros((rows, 1), jnp.int32),
        ids=jnp.zeros((rows, max_decode_length), jnp.int32),
        scores=jnp.zeros((rows,), jnp.float32),
        ended=jnp.zeros((rows,), jnp.bool_),
        rng=jax.random.PRNGKey(0) if decode_rng is None else decode_rng,
        cache=expand_batch(cache, batch_size, num_decodes, batch_axis=cache_batch_axis),
    )
    end = lax.while_loop(
        lambda loop: (loop.position < max_decode_length) & ~jnp.all(loop.ended), step, start
    )
    scores = end.scores.reshape(batch_size, num_decodes)
    order = jnp.argsort(scores, axis=1)
    ids = end.ids.reshape(batch_size, num_decodes, max_decode_length)
    return (
        jnp.take_along_axis(ids, order[:, :, None], axis=1),
        jnp.take_along_axis(scores, order, axis=1),
    )


def check_choice(topk: int, topp: float) -> None:
    """Raises a ConfigError where `topk` and `topp` do not name one way to sample."""
    if topk and topp:
        raise ConfigError(
            "temperature_sample.topk and topp",
            got=(topk, topp),
            expected="at most one of them other than 0",
            fix="set topk = 0 for nucleus sampling (its default is 1), or topp = 0.0",
        )
    if topk < 0 or not 0.0 <= topp <= 1.0:
        raise ConfigError(
            "temperature_sample.topk and topp",
            got=(topk, topp),
            expected="topk >= 0 and topp in [0, 1]",
            fix="use 0 to sample from all tokens",
        )


def filtered_logits(
    logits: jax.Array, *, temperature: float = 1.0, topk: int = 0, topp: float = 0.0
) -> jax.Array:
    """Returns the logits that tokens are drawn from; those of excluded tokens are -1e7.

    Args:
      logits: [R, V] float32, the model's.
      temperature: See `temperature_sample`; below 1e-4 the logits come back as they are.
      topk: See `temperature_sample`.
      topp: See `temperature_sample`.
    """
    if temperature <= _MIN_TEMPERATURE:
        return logits
    scaled = logits / temperature
    if topk:
        scaled = _keep_top_k(scaled, topk)
    if topp:
        scaled = _keep_nucleus(scaled, topp)
    return scaled


def _draw(
    rng: jax.Array,
    logits: jax.Array,
    temperature: float,
    topk: int,
    topp: float,
    rescale_log_probs: bool,
) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row of logits [R, V]; returns ids [R] int32 and their log-probabilities [R]."""
    greedy = temperature <= _MIN_TEMPERATURE
    scaled = filtered_logits(logits, temperature=temperature, topk=topk, topp=topp)
    token = jnp.argmax(scaled, axis=-1) if greedy else jax.random.categorical(rng, scaled)
    if greedy and rescale_log_probs:
        return token.astype(jnp.int32), jnp.zeros(token.shape, jnp.float32)
    log_probs = jax.nn.log_softmax(scaled if rescale_log_probs else logits, axis=-1)
    return token.astype(jnp.int32), jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]


def _keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Excludes all but the k largest logits of each row; logits equal to the k-th stay."""
    smallest = lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= smallest, logits, _EXCLUDED)


def _keep_nucleus(logits: jax.Array, p: float) -> jax.Array:
    """Excludes all but the largest logits of each row whose probabilities reach the sum p."""
    probs = jax.nn.softmax(logits, axis=-1)
    descending = -jnp.sort(-probs, axis=-1)
    # A token is needed where those before it fall short of p, so the most likely one always is.
    before = jnp.cumsum(descending, axis=-1) - descending
    smallest = jnp.min(jnp.where(before < p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(probs >= smallest, logits, _EXCLUDED)
