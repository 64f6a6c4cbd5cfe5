"""Greedy decoding: the most likely token at every position, until every row has ended."""

import dataclasses

import jax
import jax.numpy as jnp

from prompt_tuning.decoding.loop import TokensToLogits, decode_rows
from prompt_tuning.types import PyTree


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most likely token at every position; on equal logits the lowest id wins.

    A score equals T5X's `temperature_sample(topk=1, rescale_log_probs=False)`, and T5X's one-beam score is it divided
    by `((5 + length) / 6) ** alpha` where the row ended.
    """

    @property
    def num_decodes(self) -> int:
        """There is only one."""
        return 1

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
        """Returns ids [B, 1, T] and scores [B, 1]; see `DecodeFn`."""
        del cache_batch_axis  # Nothing is repeated.
        ids, scores = decode_rows(
            tokens_to_logits,
            cache,
            _most_likely,
            rows=batch_size,
            max_decode_length=max_decode_length,
            eos_id=eos_id,
            start_id=start_id,
            pad_id=pad_id,
        )
        return ids[:, None], scores[:, None]


def _most_likely(rng: jax.Array | None, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The likeliest token of each row of logits [R, V]: ids [R] int32 and their log-probabilities [R]."""
    del rng
    largest = jnp.max(logits, axis=-1, keepdims=True)
    # Of the shifted logits, the one that is taken is 0.
    log_prob = -jnp.log(jnp.sum(jnp.exp(logits - largest), axis=-1))
    return jnp.argmax(logits, axis=-1).astype(jnp.int32), log_prob
