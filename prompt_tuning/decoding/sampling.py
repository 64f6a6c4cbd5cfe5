"""Sampling with a temperature, from all tokens, the k most likely ones, or the nucleus of mass p."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.decoding.cache import expand_batch
from prompt_tuning.decoding.loop import TokensToLogits, decode_rows
from prompt_tuning.errors import ConfigError, check_count, check_number
from prompt_tuning.types import PyTree

# Logit of a token that may not be drawn; T5X's value, so that log-probabilities agree.
_EXCLUDED = -1.0e7
# Below this the most likely token is taken: dividing by the temperature would overflow.
MIN_TEMPERATURE = 1e-4


@dataclasses.dataclass(frozen=True)
class TemperatureSample:
    """Sequences drawn token by token.

    Every batch is drawn with the same key, `PRNGKey(seed)`, and each of its rows with its own part of it: a draw
    depends on the example, on its row and on the batch size, and is the same whenever these are. A score is the sum of
    log-probabilities up to and including EOS, without a length penalty.

    Attributes:
      temperature: Logits are divided by it. Below 1e-4 the most likely token is taken.
      topk: Draw from this many most likely tokens (more on ties); 0 from all. T5X's default of 1 is greedy.
      topp: Draw from the fewest most likely tokens whose probabilities reach this sum; 0 from all.
      num_decodes: Draws for each example (K); the most likely is the result.
      rescale_log_probs: Score tokens by the distribution they were drawn from (with `topk=1`, or a temperature below
        1e-4, every score is 0); otherwise by the model's own.
      seed: Seed of the draws.

    Raises:
      ConfigError: If a number is out of range, or both `topk` and `topp` are set.

    Source:
      t5x:t5x/decoding.py (`temperature_sample`): one key gives T5X's draws. Differs: no forced prefix.
    """

    temperature: float = 1.0
    topk: int = 1
    topp: float = 0.0
    num_decodes: int = 1
    rescale_log_probs: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_count("decoding.temperature_sample.num_decodes", self.num_decodes, "sequences")
        if self.topk and self.topp:
            raise ConfigError(
                "temperature_sample.topk and topp",
                got=(self.topk, self.topp),
                expected="at most one of them other than 0",
                fix="set topk = 0 for nucleus sampling (its default is 1), or topp = 0.0",
            )
        check_count("temperature_sample.topk", self.topk, "tokens", at_least=0)
        check_number("temperature_sample.topp", self.topp, "[0, 1]")
        check_number("temperature_sample.temperature", self.temperature, "[0, inf)")

    def __call__(
        self,
        tokens_to_logits: TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int = 1,
        cache_batch_axis: int = 0,
        start_id: int = 0,
        pad_id: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, K, T] and scores [B, K]; see `DecodeFn`."""
        ids, scores = decode_rows(
            tokens_to_logits,
            expand_batch(cache, batch_size, self.num_decodes, batch_axis=cache_batch_axis),
            self._draw,
            rows=batch_size * self.num_decodes,
            max_decode_length=max_decode_length,
            eos_id=eos_id,
            start_id=start_id,
            pad_id=pad_id,
            rng=jax.random.PRNGKey(self.seed),
        )
        scores = scores.reshape(batch_size, self.num_decodes)
        order = jnp.argsort(scores, axis=1)
        ids = ids.reshape(batch_size, self.num_decodes, max_decode_length)
        return (
            jnp.take_along_axis(ids, order[:, :, None], axis=1),
            jnp.take_along_axis(scores, order, axis=1),
        )

    def _draw(self, rng: jax.Array | None, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draws one token per row of logits [R, V]; returns ids [R] int32 and their log-probabilities [R]."""
        assert rng is not None
        greedy = self.temperature <= MIN_TEMPERATURE
        scaled = self.filtered_logits(logits)
        token = jnp.argmax(scaled, axis=-1) if greedy else jax.random.categorical(rng, scaled)
        if greedy and self.rescale_log_probs:
            return token.astype(jnp.int32), jnp.zeros(token.shape, jnp.float32)
        log_probs = jax.nn.log_softmax(scaled if self.rescale_log_probs else logits, axis=-1)
        log_prob = jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        return token.astype(jnp.int32), log_prob

    def filtered_logits(self, logits: jax.Array) -> jax.Array:
        """Returns the logits [R, V] that tokens are drawn from; those of excluded tokens are -1e7.

        Below a temperature of 1e-4 the logits come back as they are.
        """
        if self.temperature <= MIN_TEMPERATURE:
            return logits
        scaled = logits / self.temperature
        if self.topk:
            scaled = _keep_top_k(scaled, self.topk)
        if self.topp:
            scaled = keep_nucleus(scaled, self.topp)
        return scaled


def _keep_top_k(logits: jax.Array, k: int) -> jax.Array:
    """Excludes all but the k largest logits of each row; logits equal to the k-th stay."""
    smallest = lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits >= smallest, logits, _EXCLUDED)


def keep_nucleus(logits: jax.Array, p: jax.Array | float) -> jax.Array:
    """Excludes all but the largest logits of each row [R, V] whose probabilities reach the sum p, or p[R, 1]."""
    probs = jax.nn.softmax(logits, axis=-1)
    descending = -jnp.sort(-probs, axis=-1)
    # A token is needed where those before it fall short of p, so the most likely one always is.
    before = jnp.cumsum(descending, axis=-1) - descending
    smallest = jnp.min(jnp.where(before < p, descending, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(probs >= smallest, logits, _EXCLUDED)
