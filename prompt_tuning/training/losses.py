"""Cross-entropy with z-loss and label smoothing, its normalisation, and the sums every metric is made of."""

import dataclasses
import enum

import jax
import jax.numpy as jnp

from prompt_tuning.errors import check_choice, check_number
from prompt_tuning.training.choice_losses import ChoiceCounts, ChoiceLosses, choice_loss_sums
from prompt_tuning.types import Batch


class SpecialLossNormalizingFactor(enum.Enum):
    """Normalisers that depend on the batch; names as in T5X."""

    NUM_REAL_TARGET_TOKENS = 1
    NUM_TOTAL_TARGET_TOKENS = 2
    AVERAGE_PER_SEQUENCE = 3


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Terms of the loss.

    Attributes:
      z_loss: Coefficient of `log(Z)^2`, added per target token.
      label_smoothing: Probability mass spread over the other V - 1 ids, in [0, 1).
      loss_normalizing_factor: None for the plain sum over target tokens, a positive number to divide by, or the name
        of a `SpecialLossNormalizingFactor`.
      choices: Losses of the answer choices of each example, added to that of the right one; None for none.
    """

    z_loss: float = 1e-4
    label_smoothing: float = 0.0
    loss_normalizing_factor: float | str | None = None
    choices: ChoiceLosses | None = None

    def __post_init__(self) -> None:
        """Refuses values that would train silently wrong."""
        factor = self.loss_normalizing_factor
        if isinstance(factor, str):
            names = SpecialLossNormalizingFactor.__members__
            check_choice("LOSS_NORMALIZING_FACTOR", factor, names)
        else:
            check_number(
                "LOSS_NORMALIZING_FACTOR",
                factor,
                "(0, inf)",
                none_means="the sum over target tokens",
            )
        check_number("LABEL_SMOOTHING", self.label_smoothing, "[0, 1)")


def token_cross_entropy(
    logits: jax.Array, targets: jax.Array, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array]:
    """Returns the cross-entropy of each target token and its z-loss term.

    Args:
      logits: [B, T, V] float32.
      targets: [B, T] int32 token ids.
      label_smoothing: Mass spread evenly over the V - 1 other ids; the entropy of the smoothed target is
        subtracted, so that a perfect prediction still has loss 0.
      z_loss: Coefficient of `log(Z)^2`.

    Returns:
      Two [B, T] float32 arrays in nats: the loss including the z-loss, and the z-loss alone.

    Source: T5X `losses.cross_entropy_with_logits` and `compute_weighted_cross_entropy`. Differs: the target's logit is
      selected inside the reduction; no [B, T, V] soft target is written.
    """
    vocab_size = logits.shape[-1]
    confidence = 1.0 - label_smoothing
    low_confidence = label_smoothing / (vocab_size - 1)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    is_target = targets[..., None] == jnp.arange(vocab_size, dtype=targets.dtype)[None, None, :]
    soft_targets = jnp.where(is_target, jnp.float32(confidence), jnp.float32(low_confidence))
    loss = log_z - jnp.sum(soft_targets * logits, axis=-1)
    if label_smoothing:
        entropy = confidence * jnp.log(jnp.float32(confidence)) + label_smoothing * jnp.log(
            jnp.float32(low_confidence)
        )
        loss = loss + entropy
    z_term = z_loss * jnp.square(log_z)
    return loss + z_term, z_term


def weights_and_normalizer(
    batch: Batch, config: LossConfig, num_targets: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the weight of every target token and the number the summed loss is divided by.

    Computed from the whole batch, before it is cut into microbatches, so that accumulated gradients equal those of
    the full batch under every factor. T5X normalises each microbatch by itself.

    Args:
      batch: Model features; `decoder_loss_weights` [B, T] is 1 at target tokens.
      config: The loss terms.
      num_targets: Target positions of the batch before its padding was cut off; None for those that it has.

    Returns:
      Weights [B, T] float32 and a scalar float32.

    Source: T5X `losses.get_loss_normalizing_factor_and_weights`.
    """
    weights = jnp.asarray(batch["decoder_loss_weights"], jnp.float32)
    factor = config.loss_normalizing_factor
    if factor is None:
        return weights, jnp.float32(1.0)
    if not isinstance(factor, str):
        return weights, jnp.float32(factor)
    kind = SpecialLossNormalizingFactor[factor]
    if kind is SpecialLossNormalizingFactor.NUM_REAL_TARGET_TOKENS:
        return weights, jnp.sum(weights)
    if kind is SpecialLossNormalizingFactor.NUM_TOTAL_TARGET_TOKENS:
        return weights, jnp.float32(num_targets or weights.size)
    per_sequence = jnp.sum(weights, axis=-1, keepdims=True)
    if "decoder_segment_ids" in batch:
        # A packed row holds several sequences.
        segments = jnp.asarray(batch["decoder_segment_ids"])
        is_same = (segments[:, :, None] == segments[:, None, :]).astype(jnp.float32)
        per_sequence = jnp.einsum("btu,bu->bt", is_same, weights, precision="highest")
    weights = jnp.where(per_sequence > 0, weights / jnp.maximum(per_sequence, 1e-30), 0.0)
    return weights, jnp.sum(weights)


def loss_and_metric_sums(
    logits: jax.Array,
    batch: Batch,
    weights: jax.Array,
    normalizer: jax.Array,
    config: LossConfig,
    choice_counts: ChoiceCounts | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the training loss and the sums that the logged metrics are computed from.

    Args:
      logits: [B, T, V] float32.
      batch: Model features.
      weights: [B, T] float32, from `weights_and_normalizer`.
      normalizer: Scalar float32, from `weights_and_normalizer`.
      config: The loss terms.
      choice_counts: Of the whole batch, from `count_choices`, where `config.choices` are.

    Returns:
      The scalar loss, and a dict of float32 scalars that add up over microbatches and steps: `loss` and `z_loss`
      (both normalised), `correct` (target tokens whose argmax is right), `target_tokens` (with loss), `all_tokens`
      (padding included), `sequences`; with choices also `lm_loss`, that of the right ones, and the sums of
      `choice_loss_sums`.
    """
    targets = jnp.asarray(batch["decoder_target_tokens"])
    loss, z_term = token_cross_entropy(
        logits, targets, label_smoothing=config.label_smoothing, z_loss=config.z_loss
    )
    total = jnp.sum(loss * weights) / normalizer
    mask = jnp.asarray(batch["decoder_loss_weights"], jnp.float32)
    correct = (jnp.argmax(logits, axis=-1).astype(targets.dtype) == targets).astype(jnp.float32)
    sums = {
        "loss": total,
        "z_loss": jnp.sum(z_term * weights) / normalizer,
        "correct": jnp.sum(correct * mask),
        "target_tokens": jnp.sum(mask),
        "all_tokens": jnp.float32(targets.size),
        "sequences": jnp.sum(jnp.max(mask, axis=-1)),
    }
    if config.choices is not None and choice_counts is not None:
        cross_entropy, _ = token_cross_entropy(logits, targets)
        added, of_choices = choice_loss_sums(cross_entropy, batch, choice_counts, config.choices)
        sums = {**sums, **of_choices, "lm_loss": total, "loss": total + added}
    return sums["loss"], sums


def with_penalty(
    loss: jax.Array, sums: dict[str, jax.Array], penalty: jax.Array | None, num_parts: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss and the sums of a part of a batch with its share of a penalty.

    Args:
      loss: From `loss_and_metric_sums`.
      sums: The same.
      penalty: What a step adds to its loss whatever its batch is; None for nothing.
      num_parts: Parts whose losses and sums are added up.

    Returns:
      Both as they were where there is no penalty; else with it, the sums also with `penalty`, which adds up to it.
    """
    if penalty is None:
        return loss, sums
    share = penalty / num_parts
    return loss + share, {**sums, "loss": sums["loss"] + share, "penalty": share}
