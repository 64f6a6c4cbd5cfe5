"""Digests of stored arrays and of whole folders, quick enough to be checked whenever these are read.

SHA-256 takes half a second a gigabyte or more, and would be a third of the time that a checkpoint takes to load. Blocks
are therefore folded first: 16 MiB become 64 KiB by adding the numbers that stand 64 KiB apart, and what goes into the
SHA-256 is the sum. A change of one bit, byte or number always changes it; exchanged numbers go unseen only where they
stand a multiple of 64 KiB apart within a block, which no fault of a disk or a network does.
"""

import hashlib
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError

FILE = "digests.json"
_BLOCK_BYTES = 16 * 2**20
_FOLDED_BYTES = 64 * 2**10
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


def write(folder: epath.Path) -> None:
    """Writes the sizes and digests of all files of a finished folder into it."""
    files = [file for file in content.files_below(folder) if file.name != FILE]
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
    whole = block.size // _FOLDED_BYTES * _FOLDED_BYTES
    if whole > _FOLDED_BYTES:
        words = block[:whole].view(np.uint64).reshape(-1, _FOLDED_BYTES // 8)
        digest.update(words.sum(axis=0, dtype=np.uint64).tobytes())
        block = block[whole:]
    digest.update(block.tobytes())
