"""Moves stored arrays into the regions of parameters that this host needs, piece by piece.

Nothing here holds more than it returns plus a few pieces in flight: a stored array is read in blocks of the size it is
stored in, each block once for all devices of this host, and every block is cast and put in its place at once, across
the scanned and the unscanned layout.
"""

import collections
import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from prompt_tuning.checkpoints import host_memory
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.params import layouts

# (start, stop) of every dimension.
Box = tuple[tuple[int, int], ...]

# Read together where the stored blocks are smaller. Unit: bytes.
_PIECE_BYTES = 32 * 2**20
# Stored bytes being read at any time: three quarters of the largest array, within these limits. Decompressing a piece
# takes about three times its size. One piece larger than that is read alone.
_MIN_IN_FLIGHT_BYTES, _MAX_IN_FLIGHT_BYTES = 32 * 2**20, 192 * 2**20
# Enough to hide the latency of an object store behind many small arrays.
_THREADS = 8
# XLA on a CPU takes host memory for its own without a copy if it starts at a multiple of this. Unit: bytes.
_ALIGNMENT = 64


class Link(NamedTuple):
    """A stored array that makes up a parameter, or a part of one.

    Attributes:
      stored: Path in the source.
      target: Path in the model.
      layers: The layers of the stacked one of the two that the other one holds; empty if both have one layout.
    """

    stored: str
    target: str
    layers: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Target:
    """A parameter to make.

    Attributes:
      shape: Its shape.
      dtype: Its dtype; stored values are cast to it.
      boxes: The regions of it that are wanted.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    boxes: frozenset[Box]


class _Share(NamedTuple):
    """What one region takes of one stored array: where it lies there, and how a part of it is written."""

    box: Box
    write: Callable[[Box, np.ndarray], None]


def to_box(index: Sequence[slice], shape: Sequence[int]) -> Box:
    """Returns the region that `index` (slices without a step) selects of an array."""
    return tuple(
        (s.start or 0, size if s.stop is None else s.stop)
        for s, size in zip(index, shape, strict=True)
    )


def whole(shape: Sequence[int]) -> Box:
    """Returns the region that is all of an array."""
    return tuple((0, size) for size in shape)


def layer_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that one layer of a stacked parameter has in the unscanned layout."""
    rest = list(_without_layers(shape))
    heads = layouts.heads_axis(path)
    # A stored array may be of any shape.
    if heads is not None and len(rest) > heads + 1:
        rest[heads : heads + 2] = [rest[heads] * rest[heads + 1]]
    return tuple(rest)


def assemble(
    source: ParamSource, groups: Iterable[Sequence[Link]], targets: Mapping[str, Target]
) -> Iterator[dict[str, dict[Box, np.ndarray]]]:
    """Yields the wanted regions of all parameters of a group, group by group.

    Args:
      source: Where the arrays are stored.
      groups: Links that share a stored array or a parameter; each stored array is in one group only.
      targets: Path -> what is wanted of it, for all targets of the links.

    Yields:
      Path -> region -> its content, an array of its own in memory that XLA on a CPU can use without copying.

    Raises:
      CheckpointError: If an array cannot be read, or the layers' relative position tables differ and must not.
    """
    host_memory.give_back_large_blocks()
    stored = source.shapes()
    limit = _bytes_in_flight(stored, targets)
    budget = _Budget(limit)
    pending: collections.deque[_Pending] = collections.deque()
    pool = futures.ThreadPoolExecutor(_THREADS)
    try:
        for links in groups:
            parts = {
                path: {box: _empty(box, targets[path].dtype) for box in targets[path].boxes}
                for path in dict.fromkeys(link.target for link in links)
            }
            reads = [
                pool.submit(budget.run, read.nbytes, read)
                for read in _plan_reads(source, links, targets, parts, stored)
            ]
            pending.append(_Pending(parts, reads))
            while len(pending) > 1 and sum(p.nbytes for p in pending) > limit:
                yield pending.popleft().finish()
        while pending:
            yield pending.popleft().finish()
    finally:
        pool.shutdown(cancel_futures=True)


def _bytes_in_flight(
    stored: Mapping[str, tuple[tuple[int, ...], np.dtype]], targets: Mapping[str, Target]
) -> int:
    """How many stored bytes may be read at a time."""
    largest_stored = max((math.prod(s) * d.itemsize for s, d in stored.values()), default=0)
    largest = max((math.prod(t.shape) * t.dtype.itemsize for t in targets.values()), default=0)
    wanted = min(largest_stored, largest) * 3 // 4
    return min(max(wanted, _MIN_IN_FLIGHT_BYTES), _MAX_IN_FLIGHT_BYTES)


class _Pending(NamedTuple):
    """A group that is being read."""

    parts: dict[str, dict[Box, np.ndarray]]
    reads: list[futures.Future]

    @property
    def nbytes(self) -> int:
        """Bytes of all its regions."""
        return sum(array.nbytes for boxes in self.parts.values() for array in boxes.values())

    def finish(self) -> dict[str, dict[Box, np.ndarray]]:
        """Waits until it is read; returns its regions."""
        for read in self.reads:
            read.result()
        return self.parts


class _Budget:
    """Lets as many pieces be read at a time as fit into so many bytes."""

    def __init__(self, limit: int):
        self._limit, self._used, self._changed = limit, 0, threading.Condition()

    def run(self, size: int, read: Callable[[], None]) -> None:
        """Calls `read` when `size` bytes are free, or nothing else is being read."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size
        try:
            read()
        finally:
            with self._changed:
                self._used -= size
                self._changed.notify_all()


def _empty(box: Box, dtype: np.dtype) -> np.ndarray:
    """Uninitialized memory for a region, at an address that XLA on a CPU uses without copying."""
    shape = [stop - start for start, stop in box]
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + size].view(dtype).reshape(shape)


def _plan_reads(
    source: ParamSource,
    links: Sequence[Link],
    targets: Mapping[str, Target],
    parts: Mapping[str, Mapping[Box, np.ndarray]],
    stored: Mapping[str, tuple[tuple[int, ...], np.dtype]],
) -> Iterator["_Read"]:
    """The reads that the links need; each writes to parts of the regions of its own."""
    by_stored: dict[str, list[Link]] = {}
    for link in links:
        by_stored.setdefault(link.stored, []).append(link)
    for name, same_stored in by_stored.items():
        shape, dtype = stored[name]
        shares = [
            share
            for link in same_stored
            for box, array in parts[link.target].items()
            for share in _shares(link, shape, targets[link.target].shape, box, array)
        ]
        unsplit = _unsplit_axes(same_stored[0], shape, targets[same_stored[0].target].shape)
        chunk = [
            size if axis in unsplit else c
            for axis, (size, c) in enumerate(zip(shape, source.chunks(name), strict=True))
        ]
        for piece in _pieces(shape, chunk, _PIECE_BYTES // dtype.itemsize):
            touched = [(s, cut) for s in shares if (cut := _intersect(s.box, piece)) is not None]
            if touched:
                needed = _bounds([cut for _, cut in touched])
                nbytes = math.prod(stop - start for start, stop in needed) * dtype.itemsize
                yield _Read(source, name, needed, touched, nbytes)


class _Read(NamedTuple):
    """Reads one piece of a stored array and writes what each region takes of it."""

    source: ParamSource
    stored: str
    box: Box
    touched: list[tuple[_Share, Box]]
    nbytes: int

    def __call__(self) -> None:
        """Does it."""
        part = self.source.read(self.stored, tuple(slice(*bounds) for bounds in self.box))
        for share, cut in self.touched:
            share.write(cut, part[_within(cut, self.box)])


def _shares(
    link: Link,
    stored_shape: tuple[int, ...],
    shape: tuple[int, ...],
    box: Box,
    array: np.ndarray,
) -> list[_Share]:
    """What a region of a parameter takes of a stored array."""
    if not link.layers:
        return [_share_same(box, array)]
    if layouts.is_stacked(link.target):
        return _shares_stack(link, shape, box, array)
    if len(link.layers) > 1:
        return [_share_table(link.stored, stored_shape, box, array)]
    return [_share_split(link, stored_shape, box, array)]


def _share_same(box: Box, array: np.ndarray) -> _Share:
    """The same layout on both sides."""

    def write(cut: Box, part: np.ndarray) -> None:
        array[_within(cut, box)] = part

    return _Share(box, write)


def _shares_stack(link: Link, shape: tuple[int, ...], box: Box, array: np.ndarray) -> list[_Share]:
    """A layer, with its heads joined, enters a stacked parameter."""
    heads = layouts.heads_axis(link.target)
    first, last = box[layouts.LAYERS_AXIS]
    inside = list(_without_layers(box))
    split, width = [], (0, 0)
    if heads is not None:
        rows, width = inside[heads], inside[heads + 1]
        dim = _without_layers(shape)[heads + 1]
        split = [rows[1] - rows[0], dim]
        inside[heads : heads + 2] = [(rows[0] * dim, rows[1] * dim)]
    source_box = tuple(inside)

    def write_to(layer: np.ndarray) -> Callable[[Box, np.ndarray], None]:
        def write(cut: Box, part: np.ndarray) -> None:
            at = list(_within(cut, source_box))
            if heads is not None:
                part = part.reshape(*part.shape[:heads], *split, *part.shape[heads + 1 :])
                part = part[(*[slice(None)] * (heads + 1), slice(*width))]
                at[heads : heads + 1] = [slice(None), slice(None)]
            layer[tuple(at)] = part

        return write

    here = [layer for layer in link.layers if first <= layer < last]
    return [_Share(source_box, write_to(array[:, layer - first])) for layer in here]


def _share_split(link: Link, stored_shape: tuple[int, ...], box: Box, array: np.ndarray) -> _Share:
    """One layer of a stacked parameter, whose heads are then joined."""
    heads = layouts.heads_axis(link.stored)
    inside, cut_heads = list(box), slice(None)
    if heads is not None:
        dim = _without_layers(stored_shape)[heads + 1]
        start, stop = box[heads]
        rows = (start // dim, -(-stop // dim))
        # A device may hold a part of a head; heads are read whole.
        cut_heads = slice(start - rows[0] * dim, stop - rows[0] * dim)
        inside[heads : heads + 1] = [rows, (0, dim)]
    inside.insert(layouts.LAYERS_AXIS, (link.layers[0], link.layers[0] + 1))
    source_box = tuple(inside)

    def write(cut: Box, part: np.ndarray) -> None:
        at = list(_within(cut, source_box))
        at.pop(layouts.LAYERS_AXIS)
        part = part[:, 0]
        if heads is not None:
            part = part.reshape(*part.shape[:heads], -1, *part.shape[heads + 2 :])
            part = part[(*[slice(None)] * heads, cut_heads)]
            at[heads : heads + 2] = [slice(None)]
        array[tuple(at)] = part

    return _Share(source_box, write)


def _share_table(path: str, shape: tuple[int, ...], box: Box, array: np.ndarray) -> _Share:
    """The relative position table that all layers of a stacked one have to agree on."""

    def write(cut: Box, part: np.ndarray) -> None:
        del cut
        (table,) = layouts.split_layers(path, part).values()
        array[...] = table[tuple(slice(*bounds) for bounds in box)]

    return _Share(whole(shape), write)


def _without_layers(shape: Sequence) -> tuple:
    """A shape or box of a stacked parameter without its layers axis."""
    return (*shape[: layouts.LAYERS_AXIS], *shape[layouts.LAYERS_AXIS + 1 :])


def _unsplit_axes(
    link: Link, stored_shape: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The axes of the stored array along which it is not read in pieces."""
    if not link.layers:
        return ()
    if layouts.is_stacked(link.target):
        heads = layouts.heads_axis(link.target)
        return () if heads is None else (heads,)
    if len(link.layers) > 1:
        return tuple(range(len(stored_shape)))
    heads = layouts.heads_axis(link.stored)
    return () if heads is None else ((0, 2), (2, 3))[heads]


def _pieces(shape: Sequence[int], chunk: Sequence[int], limit: int) -> Iterator[Box]:
    """Boxes that cover an array, each made of whole chunks, as many as hold at most `limit` elements."""
    block = [max(1, min(c, size)) for c, size in zip(chunk, shape, strict=True)]
    for axis in reversed(range(len(block))):
        times = max(1, limit // math.prod(block))
        block[axis] = min(shape[axis], block[axis] * times)
    starts = [range(0, size, step) for size, step in zip(shape, block, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(
            (start, min(start + step, size))
            for start, step, size in zip(corner, block, shape, strict=True)
        )


def _intersect(a: Box, b: Box) -> Box | None:
    """What two boxes have in common; None if nothing."""
    both = tuple((max(p[0], q[0]), min(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return None if any(start >= stop for start, stop in both) else both


def _bounds(boxes: Sequence[Box]) -> Box:
    """The smallest box around all of them."""
    return tuple(
        (min(start for start, _ in axis), max(stop for _, stop in axis))
        for axis in zip(*boxes, strict=True)
    )


def _within(box: Box, outer: Box) -> tuple[slice, ...]:
    """Slices that select `box` from an array that holds `outer`."""
    return tuple(
        slice(start - begin, stop - begin)
        for (start, stop), (begin, _) in zip(box, outer, strict=True)
    )
