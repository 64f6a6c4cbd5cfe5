"""Moves stored arrays into the regions of parameters that this host needs, piece by piece.

Nothing here holds more than it returns plus a few pieces in flight: a stored array is read in blocks of the size it is
stored in, each block once for all devices of this host, and every block is cast and put in its place at once, across
the scanned and the unscanned layout.
"""

import collections
import ctypes
import dataclasses
import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError
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
# glibc's name of the setting in <malloc.h>, and its value here. Unit: bytes.
_M_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 4 * 2**20
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
    """What one region of a parameter takes of one stored array, how that is converted, and the region itself."""

    stored_box: Box
    to_target: Callable[[Box, np.ndarray], tuple[Box, np.ndarray]]
    box: Box
    array: np.ndarray


def to_box(index: Sequence[slice], shape: Sequence[int]) -> Box:
    """Returns the region that `index` (slices without a step) selects of an array."""
    return tuple(
        (s.start or 0, size if s.stop is None else s.stop)
        for s, size in zip(index, shape, strict=True)
    )


def whole(shape: Sequence[int]) -> Box:
    """Returns the region that is all of an array."""
    return tuple((0, size) for size in shape)


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
    _give_back_large_blocks()
    stored = source.shapes()
    largest = min(
        max((math.prod(shape) * dtype.itemsize for shape, dtype in stored.values()), default=0),
        max((math.prod(t.shape) * t.dtype.itemsize for t in targets.values()), default=0),
    )
    limit = min(max(largest * 3 // 4, _MIN_IN_FLIGHT_BYTES), _MAX_IN_FLIGHT_BYTES)
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
            # Reads of the next groups go on while this one travels to the devices; never more than the budget waits.
            while len(pending) > 1 and sum(p.nbytes for p in pending) > limit:
                yield pending.popleft().finish()
        while pending:
            yield pending.popleft().finish()
    finally:
        pool.shutdown(cancel_futures=True)


def _give_back_large_blocks() -> None:
    """Has freed blocks of 4 MiB and more returned to the system at once; where the C library is not glibc, nothing."""
    # glibc raises that threshold to 32 MiB as soon as larger blocks are freed, and then keeps, in an arena for each
    # thread, what reading a checkpoint in blocks of 16 MiB frees: a load's peak would be what it ever held. The setting
    # stays for the process: a block of that size then costs a system call, which copying its content outweighs.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


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
        # Bytes, not pieces, are counted: pieces differ by orders of magnitude, and a limit of threads bounds no memory.
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
        converted = [
            (link, _conversion(link, shape, targets[link.target].shape)) for link in same_stored
        ]
        shares = [
            _Share(stored_box, conversion.to_target, box, array)
            for link, conversion in converted
            for box, array in parts[link.target].items()
            if (stored_box := conversion.to_stored(box)) is not None
        ]
        chunk = [
            size if axis in converted[0][1].unsplit else c
            for axis, (size, c) in enumerate(zip(shape, source.chunks(name), strict=True))
        ]
        # Each piece is read once for all regions, or devices that hold the same would have it decompressed for each.
        for piece in _pieces(shape, chunk, _PIECE_BYTES // dtype.itemsize):
            touched = [
                (s, cut) for s in shares if (cut := _intersect(s.stored_box, piece)) is not None
            ]
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
            box, values = share.to_target(cut, part[_within(cut, self.box)])
            # A device may hold a part of a head; heads are read whole.
            common = _intersect(box, share.box)
            assert common is not None, (self.stored, cut, share.box)
            share.array[_within(common, share.box)] = values[_within(common, box)]


class _Conversion(NamedTuple):
    """Between a stored array and a parameter.

    Attributes:
      to_stored: Where a region of the parameter lies in the stored array, in whole heads; None if nowhere.
      to_target: Makes, of a box in the stored array and what is in it, a box in the parameter and what is in that.
      unsplit: Axes of the stored array along which it is not read in pieces.
    """

    to_stored: Callable[[Box], Box | None]
    to_target: Callable[[Box, np.ndarray], tuple[Box, np.ndarray]]
    unsplit: tuple[int, ...] = ()


def _conversion(link: Link, stored_shape: tuple[int, ...], shape: tuple[int, ...]) -> _Conversion:
    """How a link's parameter is made of its stored array."""
    if not link.layers:
        return _Conversion(lambda box: box, lambda box, part: (box, part))
    if layouts.is_stacked(link.target):
        return _stacking(link, shape)
    if len(link.layers) > 1:
        axes = tuple(range(len(stored_shape)))
        to_target = functools.partial(_one_table, link.stored)
        return _Conversion(lambda box: whole(stored_shape), to_target, axes)
    return _splitting(link, stored_shape)


def _stacking(link: Link, shape: tuple[int, ...]) -> _Conversion:
    """A layer, with its heads joined, enters a stacked parameter; the table of all layers enters each of them."""
    at = layouts.heads_axis(link.target)
    width = 1 if at is None else _without_layers(shape)[at + 1]
    layers = (link.layers[0], link.layers[-1] + 1)

    def to_stored(box: Box) -> Box | None:
        if _intersect((layers,), (box[layouts.LAYERS_AXIS],)) is None:
            return None
        inside = list(_without_layers(box))
        if at is not None:
            inside[at : at + 2] = [(inside[at][0] * width, inside[at][1] * width)]
        return tuple(inside)

    def to_target(box: Box, part: np.ndarray) -> tuple[Box, np.ndarray]:
        inside = list(box)
        if at is not None:
            inside[at : at + 1] = [(box[at][0] // width, box[at][1] // width), (0, width)]
            part = part.reshape(*part.shape[:at], -1, width, *part.shape[at + 1 :])
        inside.insert(layouts.LAYERS_AXIS, layers)
        part = np.expand_dims(part, layouts.LAYERS_AXIS)
        stacked = [stop - start for start, stop in inside]
        return tuple(inside), np.broadcast_to(part, stacked)

    return _Conversion(to_stored, to_target, () if at is None else (at,))


def _splitting(link: Link, stored_shape: tuple[int, ...]) -> _Conversion:
    """One layer leaves a stacked parameter; its heads are then joined."""
    at = layouts.heads_axis(link.stored)
    width = 1 if at is None else _without_layers(stored_shape)[at + 1]

    def to_stored(box: Box) -> Box:
        inside = list(box)
        if at is not None:
            inside[at : at + 1] = [(box[at][0] // width, -(-box[at][1] // width)), (0, width)]
        inside.insert(layouts.LAYERS_AXIS, (link.layers[0], link.layers[0] + 1))
        return tuple(inside)

    def to_target(box: Box, part: np.ndarray) -> tuple[Box, np.ndarray]:
        inside, part = list(_without_layers(box)), part[:, 0]
        if at is not None:
            inside[at : at + 2] = [(inside[at][0] * width, inside[at][1] * width)]
            part = part.reshape(*part.shape[:at], -1, *part.shape[at + 2 :])
        return tuple(inside), part

    # The axes of heads and their width, in a stored array that has the layers at `LAYERS_AXIS`.
    return _Conversion(to_stored, to_target, () if at is None else ((0, 2), (2, 3))[at])


def _one_table(path: str, box: Box, part: np.ndarray) -> tuple[Box, np.ndarray]:
    """The relative position table that all layers of a stacked one have to agree on."""
    del box
    tables = layouts.split_layers(path, part)
    for layer, table in enumerate(tables):
        if not np.array_equal(table, tables[0]):
            raise CheckpointError(
                "The unscanned layout has one relative position table for all layers",
                got=f"{path} whose layer {layer} differs from layer 0",
                expected="the same table in every layer",
                fix="bind network.T5Config.scan_layers = True for this checkpoint (its layers were trained apart),"
                " or network.T5Config.relative_bias_per_layer = True",
            )
    return whole(tables[0].shape), tables[0]


def _without_layers(shape: Sequence) -> tuple:
    """A shape or box of a stacked parameter without its layers axis."""
    return (*shape[: layouts.LAYERS_AXIS], *shape[layouts.LAYERS_AXIS + 1 :])


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
