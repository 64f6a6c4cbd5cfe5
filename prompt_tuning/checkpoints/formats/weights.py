"""The form of weights that loads fastest: `weights.json` beside one database of uncompressed arrays.

`prompt-tuning convert` writes it once. `weights.json` is written last, so that a directory without it is an unfinished
one; it lists every parameter with its shape, its dtype and the digests of its blocks, which are checked as these are
read; where the weights came from; and their digest.
"""

import collections
import math
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax.numpy as jnp
import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import file_digests, json_files, one_writer, paths
from prompt_tuning.checkpoints.formats.arrays import StoredArray, StoredArrays, in_database
from prompt_tuning.errors import CheckpointError, unreadable

INDEX_FILE = "weights.json"
ARRAYS = "arrays"
_VERSION = 1
# One stored block: large enough for object stores, small enough to be read in parallel. Unit: bytes.
_CHUNK_BYTES = 16 * 2**20
# A file of the database. Unit: bytes.
DATA_FILE_BYTES = 64 * 2**20
# Arrays that are being written at any time. The database writes what comes together at once. Unit: bytes.
_IN_FLIGHT_BYTES = 64 * 2**20
_THREADS = 16
_FIX = "convert the original checkpoint again"


def is_weights(path: epath.PathLike) -> bool:
    """Returns whether `path` is a finished directory of this form."""
    return (epath.Path(path) / INDEX_FILE).is_file()


def refuse_unfinished(path: epath.PathLike) -> None:
    """Raises CheckpointError if `path` is what a conversion that was stopped has left."""
    path = epath.Path(path)
    if (path / ARRAYS).is_dir() and not is_weights(path):
        raise CheckpointError(
            f"{path} is unfinished",
            got=f"{ARRAYS} without {INDEX_FILE}, as a `prompt-tuning convert` leaves it that was stopped",
            expected="a finished directory",
            fix=f"delete {path} and run `prompt-tuning convert` again",
        )


class WeightsSource(StoredArrays):
    """Weights that `prompt-tuning convert` wrote; a `ParamSource`.

    Args:
      path: Directory that holds `weights.json`; local or gs://.

    Attributes:
      source_kind: Kind of the checkpoint they were converted from.
      origin: Where that was.
      metadata: What the run recorded whose checkpoint they were converted from; empty for others.
      digest: Digest of all parameters (`digest.params_digest`), the prompt included if they hold one.

    Raises:
      CheckpointError: If `weights.json` is damaged or of another version.
    """

    kind = "weights"

    def __init__(self, path: epath.PathLike):
        """Reads names and shapes."""
        self.path = paths.absolute(path)
        what = f"the converted weights {self.path}"
        whole = "a complete directory that `prompt-tuning convert` wrote"
        index = json_files.read(self.path / INDEX_FILE, expected=whole, fix=_FIX)
        if index.get("version") != _VERSION:
            raise CheckpointError(
                f"{self.path} is of another version",
                got=index.get("version"),
                expected=str(_VERSION),
                fix="convert the original checkpoint again with this version of the program",
            )
        try:
            leaves = {
                name: StoredArray(
                    in_database(self.path / ARRAYS, name.replace("/", ".")),
                    tuple(leaf["shape"]),
                    jnp.dtype(leaf["dtype"]),
                )
                for name, leaf in index["params"].items()
            }
            self.source_kind: str = index["source"]["kind"]
            self.origin: str = index["source"]["path"]
            self.step: int | None = index["source"]["step"]
            self.frozen_digest: str | None = index["source"]["frozen_digest"]
            self.trainable_paths = frozenset(index["source"]["trainable_paths"])
            self.metadata: dict[str, Any] = index["source"]["metadata"]
            self.settings: Mapping[str, Any] | None = index["source"].get("settings")
            self.digest: str = index["digest"]
            # Path -> digest of each block, in the order of the blocks; earlier versions wrote none.
            self._digests: dict[str, list[str]] = {
                name: leaf["blocks"] for name, leaf in index["params"].items() if "blocks" in leaf
            }
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise unreadable(what, e, expected=whole, fix=_FIX) from e
        super().__init__(leaves, where=what, fix=_FIX)

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        # They follow from the shape: to open every array before the first is read would take long in an object store.
        return chunk_shape(*self.shapes()[path])

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it, after a look at the digests of the blocks that hold it.

        Raises:
          CheckpointError: If it cannot be read, or is not what was written.
        """
        if path not in self._digests:
            return super().read(path, index)
        shape, blocks = self.shapes()[path][0], self.chunks(path)
        wanted = [
            slice(*s.indices(n))
            for s, n in zip(index or [slice(None)] * len(shape), shape, strict=True)
        ]
        # In blocks. Storage hands out whole ones anyway, so that nothing more is read.
        grid = [slice(s.start // n, -(-s.stop // n)) for s, n in zip(wanted, blocks, strict=True)]
        begins = [g.start * n for g, n in zip(grid, blocks, strict=True)]
        ends = [min(g.stop * n, size) for g, n, size in zip(grid, blocks, shape, strict=True)]
        array = super().read(path, tuple(map(slice, begins, ends)))
        counts = [-(-size // n) for size, n in zip(shape, blocks, strict=True)]
        recorded = np.reshape(self._digests[path], counts)[tuple(grid)]
        if file_digests.of_blocks(array, blocks) != recorded.ravel().tolist():
            raise unreadable(
                f"{path} of the converted weights {self.path}",
                "other content than was written",
                expected="what was written",
                fix=_FIX,
            )
        return array[
            tuple(slice(s.start - a, s.stop - a) for s, a in zip(wanted, begins, strict=True))
        ]


class WeightsWriter:
    """Writes a directory of this form, array by array.

    Args:
      path: Directory to make; local or gs://.
      data_file_bytes: About how large a file of the database becomes; TensorStore keeps one in memory.

    Raises:
      CheckpointError: If there is something already.
    """

    def __init__(self, path: epath.PathLike, *, data_file_bytes: int = DATA_FILE_BYTES):
        """Makes the directory."""
        self.path = paths.absolute(path)
        refuse_unfinished(self.path)
        if self.path.exists() and (not self.path.is_dir() or _has_content(self.path)):
            raise CheckpointError(
                "The target exists already",
                got=str(self.path),
                expected="a directory that does not exist, or an empty one",
                fix="name another, or delete it",
            )
        self._params: dict[str, Any] = {}
        self._blocks: dict[str, list[str]] = {}
        self._data_file_bytes = data_file_bytes
        # Writes through one context are put into the database together.
        self._context = tensorstore.Context()
        self._pool = futures.ThreadPoolExecutor(_THREADS)
        self._pending: collections.deque[tuple[futures.Future, int]] = collections.deque()
        (self.path / ARRAYS).mkdir(parents=True)

    def write(self, path: str, array: np.ndarray) -> None:
        """Writes one parameter, for the most part after this returns; the array must not change any more."""
        while sum(size for _, size in self._pending) > _IN_FLIGHT_BYTES:
            self._pending.popleft()[0].result()
        self._pending.append((self._pool.submit(self._write, path, array), array.nbytes))
        self._params[path] = {"shape": list(array.shape), "dtype": array.dtype.name}

    def _write(self, path: str, array: np.ndarray) -> None:
        """Writes one parameter, and notes the digests of its blocks."""
        blocks = chunk_shape(array.shape, array.dtype)
        self._blocks[path] = file_digests.of_blocks(array, blocks)
        metadata = {
            "shape": list(array.shape),
            "chunks": list(blocks),
            "dtype": "bfloat16" if array.dtype == jnp.bfloat16 else array.dtype.str,
            "compressor": None,
        }
        kvstore = {
            **in_database(self.path / ARRAYS, path.replace("/", ".")),
            "config": {"compression": None},
            "target_data_file_size": self._data_file_bytes,
        }
        spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "create": True}
        store = tensorstore.open(spec, context=self._context).result()
        store.write(array).result()

    def finish(self, *, source: Mapping[str, Any], digest: str) -> None:
        """Waits until everything is written, and marks the directory as complete.

        Args:
          source: `kind`, `path`, `step`, `frozen_digest`, `trainable_paths` and `metadata` of the original.
          digest: `digest.params_digest` of all parameters.
        """
        for pending, _ in self._pending:
            pending.result()
        self._pool.shutdown()
        index = {
            "version": _VERSION,
            "source": source,
            "digest": digest,
            "params": {
                path: {**leaf, "blocks": self._blocks[path]} for path, leaf in self._params.items()
            },
        }
        json_files.write_atomically(self.path / INDEX_FILE, json_files.encode(index))


def _has_content(folder: epath.Path) -> bool:
    """Whether there is more in a folder than the lock of who is about to write there."""
    return any(path.name != one_writer.FILE for path in folder.iterdir())


def chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Returns blocks that are stretches of an array, all about as large: the last one is stored in full."""
    limit = max(1, _CHUNK_BYTES // dtype.itemsize)
    chunk = list(shape)
    for axis, size in enumerate(shape):
        rest = math.prod(shape[axis + 1 :])
        count = -(-size * rest // limit)
        chunk[axis] = 1 if rest > limit else -(-size // count)
        if rest <= limit:
            break
    return tuple(chunk)
