"""One line of the table that says how far this project's numbers are from somebody else's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      name: What is compared, `area/quantity[/case]`, e.g. "forward/logits".
      measured: The largest difference found, in the unit that `tolerance` has; for things that are equal or not,
        the number of those that differ.
      tolerance: The largest difference allowed.
      unit: "absolute", "relative" or "count".
      note: How many things were compared, or what else one has to know to read the number.
    """

    name: str
    measured: float
    tolerance: float
    unit: str = "absolute"
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the comparison holds; NaN never does."""
        return self.measured <= self.tolerance


@dataclass(frozen=True)
class NotChecked:
    """Something of a reference set that was not compared.

    Attributes:
      name: File, or file and the part of it.
      reason: Why not.
    """

    name: str
    reason: str


def largest(ours: Any, theirs: Any) -> float:
    """Returns the largest absolute difference of two arrays of one shape."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"shape {a.shape} compared with {b.shape}")
    if a.size == 0:
        raise ValueError("nothing to compare")
    return float(np.abs(a - b).max())


def of_maximum(ours: Any, theirs: Any) -> float:
    """Returns the largest difference as a share of the largest reference value."""
    scale = float(np.abs(np.asarray(theirs, np.float64)).max())
    return largest(ours, theirs) / (scale or 1.0)


def each_relative(ours: Any, theirs: Any, *, floor: float) -> float:
    """Returns the largest of the differences that are each divided by their own reference value, at least `floor`."""
    b = np.asarray(theirs, np.float64)
    denominator = np.maximum(np.abs(b), floor)
    return largest(np.asarray(ours, np.float64) / denominator, b / denominator)


def score_tolerance(theirs: Any) -> float:
    """Returns 1e-5, or two float32 roundings of the largest score where that is more (scores above 64).

    -1e7, which stands for "no sequence here", is no score.
    """
    scores = np.abs(np.asarray(theirs, np.float32))
    real = scores[scores < 1e6]
    return max(1e-5, 2.0 * float(np.spacing(real.max()))) if real.size else 1e-5


def second_moments(ours: Any, theirs: Any) -> float:
    """Returns the largest relative difference of second moments; below 1e-5 of the largest, as a share of that.

    They are squares of gradients: what rounding leaves of a small gradient is a share of the largest one, not of it.
    """
    return each_relative(ours, theirs, floor=1e-5 * float(np.abs(theirs).max()) or 1.0)


def differing(ours: Any, theirs: Any) -> int:
    """Returns how many elements of two arrays differ; all of them if the shapes do."""
    a, b = np.asarray(ours), np.asarray(theirs)
    return int(np.sum(a != b)) if a.shape == b.shape else max(a.size, b.size, 1)


def worst(
    measure: Callable[[Any, Any], float], ours: dict[str, Any], theirs: dict[str, Any]
) -> float:
    """Returns the largest `measure(ours, theirs)` over arrays by name; every name must be on both sides."""
    if set(ours) != set(theirs) or not ours:
        raise ValueError(f"different names: {sorted(set(ours) ^ set(theirs))[:3]}")
    # NaN has to win, which `max` of Python does not promise.
    return float(np.max([measure(ours[name], theirs[name]) for name in ours]))
