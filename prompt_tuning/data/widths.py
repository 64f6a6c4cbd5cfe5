"""Rows of like length together, in batches of a few sizes: little is computed for padding, little is compiled."""

import collections
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Positions that a program of its own has to save: compiling T5 Small's decoding takes two CPU cores as long as these.
_LEAST_SAVED = 4096
# And the share of all positions, so that long evaluations, which save thousands with every width, do not compile many.
_LEAST_SHARE = 1 / 32


class Size(NamedTuple):
    """The size of a batch, or of a row, which is a batch of one.

    Attributes:
      rows: B.
      inputs: L, in tokens.
      parts: G, parts of the targets.
      targets: T, tokens of a part.
    """

    rows: int
    inputs: int
    parts: int
    targets: int

    @property
    def positions(self) -> int:
        """Positions that are computed."""
        return self.rows * (self.inputs + self.parts * self.targets)

    def holds(self, other: "Size") -> bool:
        """Whether a batch of the other size fits."""
        return all(mine >= its for mine, its in zip(self, other, strict=True))


def real_length(tokens: np.ndarray) -> int:
    """Returns the length of an array of token ids up to the last that is not padding, over all its rows."""
    real = np.flatnonzero(np.asarray(tokens).reshape(-1, np.shape(tokens)[-1]).any(axis=0))
    return int(real[-1]) + 1 if len(real) else 0


def width_of(length: int, longest: int) -> int:
    """Returns what so many tokens, or rows, are padded to: at least 8, and less than a quarter more than they take.

    Widths are multiples of 8 up to 64, of 16 up to 128, of 32 up to 256 and so on, and `longest` itself.

    Args:
      length: Tokens.
      longest: The largest width, which `length` does not exceed.
    """
    step = max(8, (1 << (max(length, 1) - 1).bit_length()) // 8)
    return min(longest, step * max(1, -(-length // step)))


def batches_by_size(
    sizes: Sequence[Size],
    batch_size: int,
    *,
    row_multiple: int = 1,
    compiled: Collection[Size] = (),
    in_order: bool = False,
) -> list[tuple[list[int], Size]]:
    """Returns which rows make a batch, and its size; all batches are full but the last, which may be smaller.

    It is a function of its arguments, so that every process that sees the same rows computes the same batches.

    Args:
      sizes: The size of each row, made of `width_of` lengths.
      batch_size: Rows in a batch.
      row_multiple: What divides the rows of a batch: devices that they are spread over. It divides `batch_size`.
      compiled: Sizes of which there is a program already.
      in_order: Whether rows stay in their order, instead of being sorted from the largest to the smallest.

    Returns:
      (positions in `sizes`, the size of their batch) of each batch.
    """
    rows = list(range(len(sizes)))
    if not in_order:
        rows.sort(key=sizes.__getitem__, reverse=True)
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]

    def size_of(batch: list[int]) -> Size:
        largest = Size(*map(max, zip(*(sizes[i] for i in batch), strict=True)))
        parts = -(-width_of(len(batch), batch_size) // row_multiple)
        return largest._replace(rows=parts * row_multiple)

    wanted = [size_of(batch) for batch in batches]
    chosen = few_sizes(collections.Counter(wanted), compiled)
    return [(batch, chosen[size]) for batch, size in zip(batches, wanted, strict=True)]


def few_sizes(batches: Mapping[Size, int], compiled: Collection[Size] = ()) -> dict[Size, Size]:
    """Returns for each size the one it is computed in, itself or a larger one, so that each of these is worth it.

    Args:
      batches: How many batches there are of each size.
      compiled: Sizes of which there is a program already; they cost nothing.
    """
    least = max(_LEAST_SAVED, _LEAST_SHARE * sum(n * size.positions for size, n in batches.items()))
    chosen = {size: size for size in batches}
    while True:
        used = collections.Counter()
        for size, n in batches.items():
            used[chosen[size]] += n
        # (positions that are computed in vain without a program of this size, the size, the next larger one)
        merges = [
            (used[size] * (larger.positions - size.positions), size, larger)
            for size in used
            if size not in compiled
            and (larger := _next_larger(size, {*used, *compiled})) is not None
        ]
        if not merges or min(merges)[0] >= least:
            return chosen
        _, merged, larger = min(merges)
        chosen = {size: larger if to == merged else to for size, to in chosen.items()}


def _next_larger(size: Size, others: Collection[Size]) -> Size | None:
    """The size with the fewest positions among those that hold another one."""
    larger = [other for other in others if other != size and other.holds(size)]
    return min(larger, key=lambda other: (other.positions, other), default=None)
