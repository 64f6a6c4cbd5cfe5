"""The few shapes that training batches are cut to, and what of their positions is real."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from prompt_tuning.types import Batch

# Widths of inputs and of targets at most: each one that occurs is a program of its own, compiled once.
_INPUT_WIDTHS, _TARGET_WIDTHS = 12, 4
# Widths differ by a multiple of this many tokens: smaller differences save less than a program costs.
_GRAIN = 16


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """Cuts batches to their longest row, rounded up to one of a few widths.

    What is cut off is padding, which no real position attends to and which has no loss: loss and gradients are those of
    the whole batch within rounding. Under dropout they are so in distribution: the masks of hidden features do not
    depend on the width, those of attention weights do, as they are drawn for all keys of a row at once.

    Attributes:
      batch_size: Examples (rows, where SeqIO packs them) of a batch.
      lengths: TASK_FEATURE_LENGTHS, the widest inputs and targets. Unit: tokens.
      prompt_length: P, which stands in front of every example.
      width_multiple: Devices that the positions of a row are spread over.
    """

    batch_size: int
    lengths: Mapping[str, int]
    prompt_length: int = 0
    width_multiple: int = 1

    @property
    def num_targets(self) -> int:
        """Target positions of a batch that is not cut."""
        return self.batch_size * self.lengths["targets"]

    def fit(self, batch: Batch) -> dict[str, np.ndarray]:
        """Returns the batch cut to its width of inputs and its width of targets.

        Args:
          batch: Features [B, L] whose names begin with `encoder_`, [B, T] with `decoder_`; the whole global batch, so
            that every process chooses alike.
        """
        inputs = ladder(self.lengths["inputs"], _INPUT_WIDTHS, self.width_multiple)
        targets = ladder(self.lengths["targets"], _TARGET_WIDTHS, self.width_multiple)
        widths = {
            "encoder": _width(np.asarray(batch["encoder_input_tokens"]) > 0, inputs),
            "decoder": _width(np.asarray(batch["decoder_target_tokens"]) > 0, targets),
        }
        return {name: np.asarray(x)[:, : widths[name.split("_")[0]]] for name, x in batch.items()}

    def describe(self, batch: Batch) -> str:
        """Returns the shape of a batch in words; batches of one shape share a program."""
        rows, length = np.shape(batch["encoder_input_tokens"])
        targets = np.shape(batch["decoder_target_tokens"])[1]
        return f"{rows} rows of {length} inputs and {targets} targets"

    def count(self, batch: Batch) -> dict[str, float]:
        """Returns what `RunLog` adds up of a batch that `fit` has cut.

        Returns:
          `examples`; `real_tokens` of inputs and targets; `real_positions` and `positions` of encoder and decoder, the
          prompts' included.
        """
        inputs = np.asarray(batch["encoder_input_tokens"])
        targets = np.asarray(batch["decoder_target_tokens"])
        if "encoder_segment_ids" in batch:
            examples = int(np.asarray(batch["encoder_segment_ids"]).max(axis=1).sum())
        else:
            examples = int(((inputs > 0).any(axis=1) | (targets > 0).any(axis=1)).sum())
        tokens = int((inputs > 0).sum() + (targets > 0).sum())
        return {
            "examples": float(examples),
            "real_tokens": float(tokens),
            "real_positions": float(tokens + examples * self.prompt_length),
            "positions": float(inputs.size + targets.size + len(inputs) * self.prompt_length),
        }


def ladder(length: int, count: int, multiple: int = 1) -> list[int]:
    """Returns at most `count` widths, ascending, evenly spaced, `length` the last.

    They differ from `length` by multiples of `multiple`, so that they divide over devices as `length` does, with the
    prompt or without.

    Args:
      length: The largest width. Unit: tokens.
      count: Widths at most.
      multiple: See above. Unit: devices.
    """
    grain = math.lcm(_GRAIN, multiple)
    step = grain * math.ceil(length / count / grain)
    return list(range(length, 0, -step))[::-1]


def _width(is_real: np.ndarray, widths: list[int]) -> int:
    """The narrowest of `widths` that holds every real position."""
    columns = np.flatnonzero(is_real.any(axis=0))
    longest = columns[-1] + 1 if len(columns) else 0
    return next(width for width in widths if width >= longest)
