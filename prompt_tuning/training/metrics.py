"""From the sums that steps return to the tags that T5X logs."""

import math

import jax
import numpy as np

from prompt_tuning.errors import NonFiniteError


class MetricsAccumulator:
    """Collects the metric sums of several steps on the device and reads them in one transfer."""

    def __init__(self) -> None:
        """Starts empty."""
        self._steps: list[int] = []
        self._sums: list[dict[str, jax.Array]] = []

    def __len__(self) -> int:
        """Steps collected since the last flush."""
        return len(self._steps)

    def add(self, step: int, sums: dict[str, jax.Array]) -> None:
        """Adds the metrics of the update that made the run `step` updates old; does not wait for the device."""
        self._steps.append(step)
        self._sums.append(sums)

    def flush(self) -> tuple[dict[str, float], dict[str, float]]:
        """Waits for the collected steps, checks them, and forgets them.

        Returns:
          The summary tags (see `summarize`, plus `learning_rate`, `grad_norm` and `param_norm` of the last
          step where steps had them), and the raw
          sums over the steps.

        Raises:
          NonFiniteError: If a step's loss, gradient norm or norm of the updated parameters is NaN or infinite;
            names the first such step.
        """
        host = jax.device_get(self._sums)
        steps, self._steps, self._sums = self._steps, [], []
        for step, sums in zip(steps, host, strict=True):
            for quantity in ("loss", "grad_norm", "param_norm"):
                if quantity in sums and not math.isfinite(float(sums[quantity])):
                    raise NonFiniteError(
                        f"Non-finite {quantity} at step {step}",
                        got=float(sums[quantity]),
                        expected="a finite number",
                        fix="restart from the last good checkpoint with a lower learning rate, "
                        "or with ACTIVATION_DTYPE = 'float32'",
                    )
        totals = {
            name: float(np.sum([s[name] for s in host], dtype=np.float64)) for name in host[0]
        }
        tags = summarize(totals, len(host))
        for name in ("learning_rate", "grad_norm", "param_norm"):
            if name in host[-1]:
                tags[name] = float(host[-1][name])
        return tags, totals


def summarize(totals: dict[str, float], num_steps: int) -> dict[str, float]:
    """Returns T5X's training tags from sums over `num_steps` batches.

    Args:
      totals: Sums as in `losses.loss_and_metric_sums`.
      num_steps: Batches summed over.

    Returns:
      `loss`, `cross_ent_loss` and `z_loss` per step (sum over the batch's target tokens, nats), `accuracy` of target
      tokens in [0, 1], and the losses per token.

    Source: T5X `models.compute_base_metrics`.
    """
    cross_ent = totals["loss"] - totals["z_loss"]
    tokens, all_tokens = max(totals["target_tokens"], 1.0), max(totals["all_tokens"], 1.0)
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
    }


def timing(
    totals: dict[str, float], num_steps: int, seconds: float, num_devices: int
) -> dict[str, float]:
    """Returns T5X's `timing/…` tags for `num_steps` steps that took `seconds` of wall clock."""
    seconds = max(seconds, 1e-9)
    tokens_per_second = totals["target_tokens"] / seconds
    return {
        "timing/seconds": seconds,
        "timing/steps_per_second": num_steps / seconds,
        "timing/seqs_per_second": totals["sequences"] / seconds,
        "timing/target_tokens_per_second": tokens_per_second,
        "timing/target_tokens_per_second_per_core": tokens_per_second / num_devices,
    }
