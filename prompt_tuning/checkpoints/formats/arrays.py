"""Arrays that TensorStore opens, in folders or in a database: what the formats of checkpoints have in common."""

import functools
import math
import os
import stat
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.errors import CheckpointError, unreadable

# Room is made for arrays up to this size whatever lies in their files. Unit: bytes.
_BELIEVED_BYTES = 2**28
# What a larger one may be of the size of its files: zeros, which compress best, take a 250th with Blosc and a 1000th
# with gzip, and of the files that are counted together something else is in most.
_EXPANSION = 1000


class StoredArray(NamedTuple):
    """An array on disk: TensorStore's name for its folder, and what the checkpoint's index says of it."""

    kvstore: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype


def in_database(folder: epath.PathLike, stored: str) -> dict[str, Any]:
    """Returns TensorStore's name for the array `stored`, as it is called there, in the OCDBT database in `folder`."""
    return {"driver": "ocdbt", "base": paths.kvstore(folder), "path": f"{stored}/"}


def size_of_files(kvstore: Mapping[str, Any]) -> int | None:
    """Returns the size of all files of an array, or of a database, which many share; None in an object store.

    Args:
      kvstore: TensorStore's name for it. Unit: bytes.

    Raises:
      ValueError: If one of them is no file: TensorStore would wait for a pipe for ever.
    """
    files = kvstore.get("base", kvstore)
    return _size_below(files["path"]) if files["driver"] == "file" else None


@functools.lru_cache(maxsize=1)
def _size_below(folder: str) -> int:
    """The size of all files below a local folder; those of a database are looked at once for all of its arrays."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            found = os.stat(path := os.path.join(parent, name))
            if not stat.S_ISREG(found.st_mode):
                raise ValueError(f"{path} is no file, but a device or a pipe")
            size += found.st_size
    return size


class StoredArrays:
    """Arrays by name, each opened when it is first asked for; several threads may read at once.

    Args:
      leaves: Name -> the array, or where it is stored.
      where: What an error calls the whole: "the T5X checkpoint /path".
      fix: What an error advises.
    """

    def __init__(self, leaves: Mapping[str, np.ndarray | StoredArray], *, where: str, fix: str):
        """Opens nothing."""
        self._leaves, self._where, self._fix = leaves, where, fix
        self._opened: dict[str, tensorstore.TensorStore] = {}
        # One for all, so that a database is opened once.
        self._context = tensorstore.Context()

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns name -> (shape, dtype) of every array, as far as the index tells."""
        return {name: (leaf.shape, leaf.dtype) for name, leaf in self._leaves.items()}

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which an array is stored."""
        if not isinstance(self._leaves[path], StoredArray):
            return self._leaves[path].shape
        store = self._open(path)
        chunk = store.chunk_layout.read_chunk.shape or ()
        return tuple(c or size for c, size in zip(chunk, store.shape, strict=True))

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one array, or a part of it, in the dtype it is stored in.

        Args:
          path: One of `shapes()`.
          index: The part, one slice a dimension; None for all.

        Raises:
          CheckpointError: If its file is missing, incomplete, or not of the recorded shape and dtype.
        """
        leaf = self._leaves[path]
        if not isinstance(leaf, StoredArray):
            return leaf if index is None else leaf[index]
        store = self._open(path)
        try:
            return (store if index is None else store[index]).read().result()
        except (OSError, ValueError) as e:
            what = f"{path} of {self._where}"
            raise unreadable(what, e, expected="a complete zarr array", fix=self._fix) from e

    def _open(self, path: str) -> tensorstore.TensorStore:
        """The opened array of a name; the same each time."""
        if path in self._opened:
            return self._opened[path]
        leaf = self._leaves[path]
        assert isinstance(leaf, StoredArray), path
        spec: dict[str, Any] = {"driver": "zarr", "kvstore": dict(leaf.kvstore)}
        try:
            size = size_of_files(leaf.kvstore)
            # Writers without a fill value store every chunk, so a missing one is a lost one and not zeros.
            for fill_missing in (False, True):
                spec["fill_missing_data_reads"] = fill_missing
                opening = tensorstore.open(spec, open=True, read=True, context=self._context)
                store = opening.result()
                if store.fill_value is None:
                    break
        except (OSError, ValueError) as e:
            what = f"{path} of {self._where}"
            raise unreadable(what, e, expected="a complete zarr array", fix=self._fix) from e
        found = (tuple(store.shape), store.dtype.numpy_dtype)
        if found != (leaf.shape, leaf.dtype):
            raise CheckpointError(
                f"{path} of {self._where} contradicts its own index",
                got=f"{list(found[0])} {found[1]}",
                expected=f"{list(leaf.shape)} {leaf.dtype}",
                fix=self._fix,
            )
        self._check_size(path, store, size)
        self._opened[path] = store
        return store

    def _check_size(self, path: str, store: tensorstore.TensorStore, size: int | None) -> None:
        """Raises CheckpointError if an array is said to be far larger than its files are.

        Chunks that are not there may stand for zeros, so that a header of a few bytes could ask for any memory.

        Args:
          path: Its name.
          store: The opened array.
          size: The size of its files; None: not known. Unit: bytes.
        """
        chunk = [size or 1 for size in store.chunk_layout.read_chunk.shape or ()]
        claimed = max(math.prod(store.shape), math.prod(chunk)) * store.dtype.numpy_dtype.itemsize
        if size is not None and claimed > max(_BELIEVED_BYTES, size * _EXPANSION):
            raise CheckpointError(
                f"{path} of {self._where} is said to be larger than its files can hold",
                got=f"{list(store.shape)} {store.dtype.numpy_dtype} in blocks of {chunk}, {claimed:,} bytes",
                expected=f"at most {_EXPANSION} times the {size:,} bytes that are there",
                fix=self._fix,
            )
