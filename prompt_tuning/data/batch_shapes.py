"""The few shapes that training batches are packed and cut to, and what of their positions is real."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from prompt_tuning.data import packing
from prompt_tuning.data.widths import real_length

# Widths of inputs and of targets, and numbers of packed rows, at most: each shape that occurs is a program of its own,
# compiled once.
_INPUT_WIDTHS, _TARGET_WIDTHS, _ROW_COUNTS = 12, 4, 16
# Targets of a packed row hold this many of the longest.
_TARGETS_OF_ROW = 4
# Widths of inputs and of targets differ by a multiple of so many tokens: smaller differences save less than a program
# costs.
_INPUT_GRAIN, _TARGET_GRAIN = 16, 8


@dataclasses.dataclass(frozen=True)
class BatchShapes:
    """Cuts batches to their longest row, rounded up to one of a few widths; packs them before, if told to.

    What is cut off is padding, which no real position attends to and which has no loss: loss and gradients are those of
    the whole batch within rounding. They are so under dropout where the model is told `widths`.

    Attributes:
      batch_size: Examples (rows, where SeqIO packs them) of a batch.
      lengths: TASK_FEATURE_LENGTHS, the widest inputs and targets. Unit: tokens.
      prompt_length: P, which stands in front of every example.
      packs: Whether examples are packed with their prompts, into rows of P positions and the longest inputs.
      width_multiple: Devices that the positions of a row are spread over.
      row_multiple: What divides the number of packed rows: replicas times microbatches.
    """

    batch_size: int
    lengths: Mapping[str, int]
    prompt_length: int = 0
    packs: bool = False
    width_multiple: int = 1
    row_multiple: int = 1

    @property
    def num_targets(self) -> int:
        """Target positions of a batch that is not cut."""
        return self.batch_size * self.lengths["targets"]

    @property
    def widths(self) -> tuple[int, int]:
        """Encoder and decoder positions of a row that is not cut, a prompt in front of it left out."""
        inputs, targets = self.lengths["inputs"], self.lengths["targets"]
        if not self.packs:
            return inputs, targets
        return self.prompt_length + inputs, _TARGETS_OF_ROW * targets

    def fit(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the batch cut to its width of inputs and its width of targets.

        Args:
          batch: Features [B, L] whose names begin with `encoder_`, [B, T] with `decoder_`; the whole global batch, so
            that every process chooses alike.
        """
        inputs, targets = self.widths
        if self.packs:
            batch = packing.pack(
                batch,
                prompt_length=self.prompt_length,
                width=inputs,
                target_width=targets,
                row_counts=ladder(self.batch_size, _ROW_COUNTS, self.row_multiple),
            )
        cut = {}
        for side, longest, count, grain in (
            ("encoder", inputs, _INPUT_WIDTHS, _INPUT_GRAIN),
            ("decoder", targets, _TARGET_WIDTHS, _TARGET_GRAIN),
        ):
            widths = ladder(longest, count, math.lcm(grain, self.width_multiple))
            cut[side] = _width(_is_real(batch, side), widths)
        # One number an example has no width.
        return {
            name: x[:, : cut[name.split("_")[0]]] if x.ndim > 1 else x for name, x in batch.items()
        }

    def describe(self, batch: Mapping[str, np.ndarray]) -> str:
        """Returns the shape of a batch in words; batches of one shape share a program."""
        rows, length = np.shape(batch["encoder_input_tokens"])
        targets = np.shape(batch["decoder_target_tokens"])[1]
        return f"{rows} rows of {length} inputs and {targets} targets"

    def count(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Returns what `RunLog` adds up of a batch that `fit` has cut.

        Returns:
          `examples`; `real_tokens` of inputs and targets; `real_positions` and `positions` of encoder and decoder, the
          prompts' included.
        """
        inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
        is_input, is_target = _is_real(batch, "encoder"), _is_real(batch, "decoder")
        if "encoder_segment_ids" in batch:
            examples = int(batch["encoder_segment_ids"].max(axis=1).sum())
        else:
            examples = int((is_input.any(axis=1) | is_target.any(axis=1)).sum())
        tokens = np.count_nonzero(inputs) + np.count_nonzero(targets)
        # Packed, the prompts are among the positions of the encoder.
        real, total = is_input.sum() + is_target.sum(), is_input.size + is_target.size
        if not self.packs:
            real, total = (
                real + examples * self.prompt_length,
                total + len(inputs) * self.prompt_length,
            )
        return {
            "examples": float(examples),
            "real_tokens": float(tokens),
            "real_positions": float(real),
            "positions": float(total),
        }


def _is_real(batch: Mapping[str, np.ndarray], side: str) -> np.ndarray:
    """Which positions of the encoder's or the decoder's rows are no padding; bool."""
    tokens = {"encoder": "encoder_input_tokens", "decoder": "decoder_target_tokens"}[side]
    return batch.get(f"{side}_segment_ids", batch[tokens]) > 0


def ladder(largest: int, count: int, multiple: int) -> list[int]:
    """Returns at most `count` numbers, ascending, evenly spaced, `largest` the last.

    They differ from `largest` by multiples of `multiple`, so that they divide over devices as it does, with a prompt in
    front or without.

    Args:
      largest: The largest number.
      count: Numbers at most.
      multiple: See above.
    """
    step = multiple * math.ceil(largest / count / multiple)
    return list(range(largest, 0, -step))[::-1]


def _width(is_real: np.ndarray, widths: list[int]) -> int:
    """The narrowest of `widths` that holds every real position."""
    longest = real_length(is_real)
    return next(width for width in widths if width >= longest)
