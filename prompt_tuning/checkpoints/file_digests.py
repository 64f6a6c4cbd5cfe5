"""Digests of stored arrays and of whole folders, quick enough to be checked whenever these are read.

SHA-256 takes half a second a gigabyte or more, a third of the time that a checkpoint takes to load. What is larger than
64 KiB is therefore folded first: of every 4 KiB its sum as 64-bit numbers goes into the SHA-256. A change of
one bit, byte or number always changes it, and so do pages that changed places; what goes unseen are numbers of one page
that changed places, or changes of several that cancel out, which no fault of a disk or a network makes.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError

FILE = "digests.json"
_BLOCK_BYTES = 16 * 2**20
_PAGE_BYTES = 4 * 2**10
_EXACT_BYTES = 64 * 2**10
_THREADS = 8
# Files in an object store up to this size are read twice to be checked. Unit: bytes.
_SMALL_BYTES = 2**20


def of_array(array: np.ndarray) -> str:
    """Returns the digest of an array's bytes, in the order of its elements: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _BLOCK_BYTES):
        _add(digest, flat[start : start + _BLOCK_BYTES])
    return digest.hexdigest()[:16]


def of_blocks(array: np.ndarray, blocks: Sequence[int]) -> list[str]:
    """Returns the digests of the blocks of an array, which are of one shape but at its ends, the last axis fastest."""
    starts = itertools.product(
        *(range(0, size, n) for size, n in zip(array.shape, blocks, strict=True))
    )
    return [
        of_array(array[tuple(slice(a, a + n) for a, n in zip(start, blocks, strict=True))])
        for start in starts
    ]


def write(folder: epath.Path, *, without: str) -> None:
    """Writes the sizes and digests of the files of a finished folder into it.

    Args:
      folder: The folder, all that lies below it included.
      without: Name of files that say nothing but that they are there.
    """
    files = [file for file in content.files_below(folder) if file.name not in (FILE, without)]
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(_names(folder, files), pool.map(_measure, files), strict=True))
    json_files.write_atomically(folder / FILE, json_files.encode({"files": found}))


def are_in(folder: epath.Path) -> bool:
    """Returns whether a folder has digests."""
    return (folder / FILE).is_file()


def find_damage(folder: epath.Path) -> str | None:
    """Returns what in a folder is not as `write` found it; None if nothing is, or it was written without digests.

    In an object store, which keeps and checks a digest of its own for every object, the content of larger files is not
    read a second time.
    """
    if not are_in(folder):
        return None
    try:
        record = json_files.read(folder / FILE, expected="digests", fix="")
        recorded: Mapping[str, Any] = record["files"]
        files = [folder / name for name in recorded]
        with futures.ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(_measure, files)
            pairs = zip(recorded.items(), found, strict=True)
            return next(
                (f"{name} is not what was written" for (name, a), b in pairs if a != b), None
            )
    except (CheckpointError, KeyError, TypeError, AttributeError, ValueError) as error:
        return f"{FILE}: {error}"


def _names(folder: epath.Path, files: list[epath.Path]) -> list[str]:
    """The files' names below their folder."""
    return [file.relative_to(folder).as_posix() for file in files]


def _measure(file: epath.Path) -> dict[str, Any] | None:
    """Size and digest of a file; None if it is not there."""
    if not file.is_file():
        return None
    size = file.stat().length
    if size > _SMALL_BYTES and paths.in_object_store(file):
        return {"size": size}
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            _add(digest, np.frombuffer(block, np.uint8))
    return {"size": size, "digest": digest.hexdigest()}


def _add(digest: Any, block: np.ndarray) -> None:
    """Adds a block of uint8 to a digest, folded."""
    if block.size > _EXACT_BYTES:
        whole = block.size // _PAGE_BYTES * _PAGE_BYTES
        pages = block[:whole].view(np.uint64).reshape(-1, _PAGE_BYTES // 8)
        digest.update(pages.sum(axis=1, dtype=np.uint64))
        block = block[whole:]
    digest.update(block)
