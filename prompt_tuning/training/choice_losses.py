"""T-Few's two losses over the answer choices of an example, beside the cross-entropy of the right one.

The choices of an example stand behind each other in one decoder row, each with the number of its own in
`decoder_segment_ids`; `decoder_loss_weights` is 1 at the tokens of the right one (`data/choices.py` makes such rows).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.errors import check_number
from prompt_tuning.types import Batch

# Added in the logarithm of the unlikelihood loss, so that a wrong token of probability 1 has a finite loss.
_MARGIN = 0.01
# Stands for the score of what is no choice: far below every sum of log-probabilities, and finite.
_NO_CHOICE = -1e9


@dataclasses.dataclass(frozen=True)
class ChoiceLosses:
    """How much the wrong choices weigh in the loss.

    Attributes:
      unlikelihood: Coefficient of the unlikelihood loss of the wrong choices' tokens; 0 for none.
      length_normalized: Coefficient of the cross-entropy of the right choice among the choices; 0 for none.
      length_norm: Exponent of a choice's length in tokens, by which the sum of its log-probabilities is divided before
        it is compared with those of the others: 1 for their mean, 0 for their sum.

    Source: Liu et al. 2022, section 3.2; t-few:src/models/EncoderDecoder.py (there `unlikely_loss`, `mc_loss` and
      `length_norm`).
    """

    unlikelihood: float = 1.0
    length_normalized: float = 1.0
    length_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuses negative numbers, which would turn a loss around."""
        for field in dataclasses.fields(self):
            check_number(f"losses.ChoiceLosses.{field.name}", getattr(self, field.name), "[0, inf)")


class ChoiceCounts(NamedTuple):
    """What sums over choices are divided by, of a whole batch; float32 scalars.

    Attributes:
      wrong_tokens: Tokens of wrong choices.
      examples: Rows with a right choice.
      longest: Tokens of the longest choice.
    """

    wrong_tokens: jax.Array
    examples: jax.Array
    longest: jax.Array


def count_choices(batch: Batch) -> ChoiceCounts:
    """Returns the counts of a whole batch, before it is cut into microbatches.

    Args:
      batch: Model features with `decoder_segment_ids` [B, T].
    """
    segments, is_right, is_wrong = _masks(batch)
    length = _over_choice(segments, jnp.ones(segments.shape, jnp.float32))
    return ChoiceCounts(
        jnp.sum(is_wrong, dtype=jnp.float32),
        jnp.sum(jnp.any(is_right, axis=-1), dtype=jnp.float32),
        jnp.max(length),
    )


def choice_loss_sums(
    cross_entropy: jax.Array, batch: Batch, counts: ChoiceCounts, config: ChoiceLosses
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the weighted sum of both losses, and the sums that are logged.

    The unlikelihood loss is T-Few's code's, not its paper's: there every position of every choice, padded to the
    longest of the batch, adds `-log(1 - p + 0.01)`, those of padding and of right choices with p = 0. What these add is
    a number that no parameter changes, -0.00995 a position. Differs: choices are counted as they are, where T-Few
    refuses batches of examples with different numbers of them.

    Args:
      cross_entropy: [B, T] float32, of each target token, nats.
      batch: Model features of the rows, all of a batch or some.
      counts: Of the whole batch.
      config: The coefficients.

    Returns:
      The scalar to add to the loss, and float32 scalars that add up over microbatches: `unlikelihood_loss` and
      `length_normalized_loss` (both divided by the counts of the whole batch, without their coefficients), and
      `right_choices`, examples whose right choice has a better score than all others.

    Source: t-few:src/models/EncoderDecoder.py (`training_step`).
    """
    segments, is_right, is_wrong = _masks(batch)
    length = _over_choice(segments, jnp.ones(segments.shape, jnp.float32))
    is_first = (segments > 0) & (segments != jnp.pad(segments, ((0, 0), (1, 0)))[:, :-1])

    p = jnp.where(is_wrong, jnp.exp(-cross_entropy), 0.0)
    num_positions = jnp.sum(is_first, dtype=jnp.float32) * counts.longest
    # Of the row's own padding only as much counts as T-Few's rows, of one choice each, would have.
    num_wrong = jnp.sum(is_wrong, dtype=jnp.float32)
    wrong = jnp.sum(jnp.where(is_wrong, -jnp.log(1.0 - p + _MARGIN), 0.0))
    constant = -jnp.log(jnp.float32(1.0) + _MARGIN) * (num_positions - num_wrong)
    unlikelihood = (wrong + constant) / jnp.maximum(counts.wrong_tokens, 1.0)

    total = _over_choice(segments, -cross_entropy)
    score = total / jnp.maximum(length, 1.0) ** config.length_norm
    right_score = jnp.sum(jnp.where(is_first & is_right, score, 0.0), axis=-1)
    others = jnp.max(jnp.where(is_first & is_wrong, score, _NO_CHOICE), axis=-1)
    log_sum = jax.nn.logsumexp(jnp.where(is_first, score, _NO_CHOICE), axis=-1)
    is_example = jnp.any(is_right, axis=-1)
    of_each = jnp.where(is_example, log_sum - right_score, 0.0)
    length_normalized = jnp.sum(of_each) / jnp.maximum(counts.examples, 1.0)

    return config.unlikelihood * unlikelihood + config.length_normalized * length_normalized, {
        "unlikelihood_loss": unlikelihood,
        "length_normalized_loss": length_normalized,
        "right_choices": jnp.sum(is_example & (right_score > others), dtype=jnp.float32),
    }


def _masks(batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Number of each token's choice, 0 at padding; whether it is of the right one; whether of a wrong one; [B, T]."""
    segments = jnp.asarray(batch["decoder_segment_ids"])
    is_right = (segments > 0) & (jnp.asarray(batch["decoder_loss_weights"]) > 0)
    return segments, is_right, (segments > 0) & ~is_right


def _over_choice(segments: jax.Array, values: jax.Array) -> jax.Array:
    """The sum of values [B, T] over all tokens of a position's choice, at every position; 0 at padding."""
    is_same = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    return jnp.einsum("btu,bu->bt", is_same.astype(jnp.float32), values, precision="highest")
