"""From the sums that steps return to the tags that T5X logs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.errors import NonFiniteError


def check_finite(steps: Sequence[int], sums: Sequence[Mapping[str, Any]]) -> None:
    """Raises NonFiniteError if a loss, a gradient norm or a norm of updated parameters is NaN or infinite.

    Args:
      steps: Updates applied so far, of each step; the error names the first step that is wrong.
      sums: The metrics of each step, on the host.
    """
    for step, metrics in zip(steps, sums, strict=True):
        for quantity in ("loss", "grad_norm", "param_norm"):
            if not math.isfinite(metrics.get(quantity, 0.0)):
                raise NonFiniteError(
                    f"Non-finite {quantity} at step {step}",
                    got=float(metrics[quantity]),
                    expected="a finite number",
                    fix="restart from the last good checkpoint with a lower learning rate, "
                    "or with ACTIVATION_DTYPE = 'float32'",
                )


def summarize(totals: dict[str, float], num_steps: int) -> dict[str, float]:
    """Returns T5X's training tags from sums over `num_steps` batches.

    Args:
      totals: Sums as in `losses.loss_and_metric_sums`.
      num_steps: Batches summed over.

    Returns:
      `loss`, `cross_ent_loss` and `z_loss` per step (sum over the batch's target tokens, nats), `accuracy` of target
      tokens in [0, 1], and the losses per token; of choices also T-Few's three losses and `choice_accuracy`; and
      `penalty` per step, a part of `loss`, where a method adds one (`models/methods/method.py`).

    Source: T5X `models.compute_base_metrics`.
    """
    cross_ent = totals["loss"] - totals["z_loss"]
    of_method = {}
    if "penalty" in totals:
        cross_ent -= totals["penalty"]
        of_method = {"penalty": totals["penalty"] / num_steps}
    tokens, all_tokens = max(totals["target_tokens"], 1.0), max(totals["all_tokens"], 1.0)
    of_choices = {}
    if "right_choices" in totals:
        losses = ("lm_loss", "unlikelihood_loss", "length_normalized_loss")
        of_choices = {name: totals[name] / num_steps for name in losses}
        of_choices["choice_accuracy"] = totals["right_choices"] / max(totals["sequences"], 1.0)
    return {
        "loss": totals["loss"] / num_steps,
        "cross_ent_loss": cross_ent / num_steps,
        "z_loss": totals["z_loss"] / num_steps,
        "accuracy": totals["correct"] / tokens,
        "loss_per_nonpadding_target_token": totals["loss"] / tokens,
        "loss_per_all_target_tokens": totals["loss"] / all_tokens,
        "cross_ent_loss_per_all_target_tokens": cross_ent / all_tokens,
        "z_loss_per_all_target_tokens": totals["z_loss"] / all_tokens,
        "non_padding_fraction/decoder_target_tokens": totals["target_tokens"] / all_tokens,
        **of_choices,
        **of_method,
    }


def timing(
    totals: dict[str, float], num_steps: int, seconds: float, num_devices: int
) -> dict[str, float]:
    """Returns T5X's `timing/…` tags for `num_steps` steps that took `seconds` of wall clock.

    Beside them stands what T5X does not count, of inputs as of targets: `timing/examples_per_second`,
    `timing/real_tokens_per_second`, and `padding_fraction`, the share of positions, prompts included, that are padding.

    Args:
      totals: Sums as in `losses.loss_and_metric_sums` and `BatchShapes.count`.
      num_steps: Steps summed over.
      seconds: Their wall clock.
      num_devices: Devices that took part.
    """
    seconds = max(seconds, 1e-9)
    tokens_per_second = totals["target_tokens"] / seconds
    return {
        "timing/seconds": seconds,
        "timing/steps_per_second": num_steps / seconds,
        "timing/seqs_per_second": totals["sequences"] / seconds,
        "timing/target_tokens_per_second": tokens_per_second,
        "timing/target_tokens_per_second_per_core": tokens_per_second / num_devices,
        "timing/examples_per_second": totals["examples"] / seconds,
        "timing/real_tokens_per_second": totals["real_tokens"] / seconds,
        "padding_fraction": 1.0 - totals["real_positions"] / totals["positions"],
    }
