"""A source in memory that notes what is read of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath


class MemorySource:
    """Parameters in memory; a `ParamSource`.

    Args:
      params: Path -> array, in either layout.
      rows_in_chunk: Rows that count as stored together; None for all of an array.

    Attributes:
      reads: The path of every read, in order.
      seen: Path -> how often each element was read.
    """

    kind = "t5x"
    step: int | None = 3
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()
    settings: Mapping[str, Any] | None = None
    path = epath.Path("memory")

    def __init__(self, params: Mapping[str, np.ndarray], rows_in_chunk: int | None = None):
        """Keeps the arrays."""
        self.params, self.rows_in_chunk = dict(params), rows_in_chunk
        self.reads: list[str] = []
        self.seen = {path: np.zeros(x.shape, int) for path, x in params.items()}

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Path -> (shape, dtype)."""
        return {path: (x.shape, x.dtype) for path, x in self.params.items()}

    def chunks(self, path: str) -> tuple[int, ...]:
        """Some rows."""
        shape = self.params[path].shape
        return (self.rows_in_chunk, *shape[1:]) if self.rows_in_chunk else shape

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """A part, noted."""
        self.reads.append(path)
        at = () if index is None else index
        self.seen[path][at] += 1
        return self.params[path][at]
