"""How a model decodes, as small frozen values: what a config names, and what `EncoderDecoderModel.decode_fn` holds."""

import dataclasses
from typing import Protocol

import jax

from prompt_tuning.decoding import beam_search, greedy, sampling
from prompt_tuning.errors import ConfigError
from prompt_tuning.types import PyTree


class DecodeFn(Protocol):
    """Decodes K = `num_decodes` sequences for each row."""

    @property
    def num_decodes(self) -> int:
        """K."""
        ...

    def __call__(
        self,
        tokens_to_logits: greedy.TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int,
        cache_batch_axis: int,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, K, T] int32 and scores [B, K] float32, the best last; arguments as for `beam_search`."""
        ...


@dataclasses.dataclass(frozen=True)
class Greedy:
    """The most likely token at every position; see `greedy_decode`."""

    @property
    def num_decodes(self) -> int:
        """There is only one."""
        return 1

    def __call__(
        self,
        tokens_to_logits: greedy.TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int = 1,
        cache_batch_axis: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, 1, T] and scores [B, 1]."""
        del cache_batch_axis  # Nothing is repeated.
        ids, scores = greedy.greedy_decode(
            tokens_to_logits,
            cache,
            batch_size=batch_size,
            max_decode_length=max_decode_length,
            eos_id=eos_id,
        )
        return ids[:, None], scores[:, None]


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """The best sequences that a beam finds; see `beam_search.beam_search`.

    Attributes:
      num_decodes: Beams.
      alpha: Exponent of the brevity penalty that log-probabilities are divided by; 0 for none.

    Raises:
      ConfigError: If there is no beam.
    """

    num_decodes: int = 4
    alpha: float = 0.6

    def __post_init__(self) -> None:
        """Checks the number of beams."""
        _check_num_decodes("decoding.beam_search", self.num_decodes)

    def __call__(
        self,
        tokens_to_logits: greedy.TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int = 1,
        cache_batch_axis: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, K, T] and scores [B, K]."""
        return beam_search.beam_search(
            tokens_to_logits,
            cache,
            batch_size=batch_size,
            max_decode_length=max_decode_length,
            eos_id=eos_id,
            num_decodes=self.num_decodes,
            alpha=self.alpha,
            cache_batch_axis=cache_batch_axis,
        )


@dataclasses.dataclass(frozen=True)
class TemperatureSample:
    """Sequences drawn token by token; see `sampling.temperature_sample`.

    Every batch is drawn with the same key, `PRNGKey(seed)`, and each of its rows with its own part of it: a draw
    depends on the example, on its row and on the batch size, and is the same whenever these are.

    Attributes:
      temperature: Logits are divided by it.
      topk: Draw from this many most likely tokens; 0 from all. T5X's default of 1 is greedy.
      topp: Draw from the most likely tokens that together have this probability; 0 from all.
      num_decodes: Draws for each example; the most likely is the result.
      rescale_log_probs: Score tokens by the distribution they were drawn from instead of by the model's own.
      seed: Seed of the draws.

    Raises:
      ConfigError: If a number is out of range, or both `topk` and `topp` are set.
    """

    temperature: float = 1.0
    topk: int = 1
    topp: float = 0.0
    num_decodes: int = 1
    rescale_log_probs: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the numbers."""
        _check_num_decodes("decoding.temperature_sample", self.num_decodes)
        sampling.check_choice(self.topk, self.topp)
        if self.temperature < 0:
            raise ConfigError(
                "decoding.temperature_sample.temperature is negative",
                got=self.temperature,
                expected="a number >= 0; 0 takes the most likely token",
                fix="bind it to 1.0 to draw from the model's own distribution",
            )

    def __call__(
        self,
        tokens_to_logits: greedy.TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int = 1,
        cache_batch_axis: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, K, T] and scores [B, K]."""
        return sampling.temperature_sample(
            tokens_to_logits,
            cache,
            batch_size=batch_size,
            max_decode_length=max_decode_length,
            eos_id=eos_id,
            decode_rng=jax.random.PRNGKey(self.seed),
            num_decodes=self.num_decodes,
            temperature=self.temperature,
            topk=self.topk,
            topp=self.topp,
            rescale_log_probs=self.rescale_log_probs,
            cache_batch_axis=cache_batch_axis,
        )


def _check_num_decodes(name: str, value: int) -> None:
    """Raises ConfigError unless at least one sequence is decoded."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(
            f"{name}.num_decodes is not a number of sequences",
            got=value,
            expected="a whole number >= 1",
            fix=f"bind {name}.num_decodes to such a number",
        )
