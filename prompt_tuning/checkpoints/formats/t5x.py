"""Reads checkpoints in T5X's older, own format, array by array or part by part.

Such a directory holds a msgpack file `checkpoint` (the tree: small arrays whole, large ones as a TensorStore spec) and
one zarr folder per large array, `target.{path with dots}`. Parameters are under `optimizer/target`; `optimizer/state`
holds the step and Adafactor's `param_states/{path}/{m,v,v_row,v_col}`.

Source: T5X, `checkpoints.py` (format version 3; driver `file`, `gfile` or `gcs`). As there, arrays that version 2 wrote
as uint16 in place of bfloat16 are refused.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import msgpack
import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.errors import CheckpointError

INDEX_FILE = "checkpoint"
# Flax's msgpack extension types, and its key for an array that msgpack could not hold in one piece.
_EXT_NDARRAY = 1
_EXT_NPSCALAR = 3
_CHUNKED = "__msgpack_chunked_array__"


class StoredArray(NamedTuple):
    """An array in a folder of its own: TensorStore's name for the folder, and what the index says of it."""

    kvstore: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype


def is_t5x_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one T5X checkpoint."""
    return (epath.Path(path) / INDEX_FILE).is_file()


class StoredParams:
    """The parameters of one T5X checkpoint in either of its formats; a `ParamSource`.

    Args:
      path: Directory of the checkpoint.
      leaves: Its parameters by their paths.
      step: Its step; None if it is not known.
    """

    kind = "t5x"
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()
    settings: Mapping[str, Any] | None = None

    def __init__(
        self, path: epath.Path, leaves: Mapping[str, np.ndarray | StoredArray], step: int | None
    ):
        """Opens nothing."""
        self.path = path
        self.step: int | None = step
        self._leaves = leaves
        self._opened: dict[str, tensorstore.TensorStore] = {}

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter, as far as the index tells."""
        return {path: (leaf.shape, leaf.dtype) for path, leaf in self._leaves.items()}

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        if isinstance(self._leaves[path], StoredArray):
            store = self._open(path)
            chunk = store.chunk_layout.read_chunk.shape or ()
            return tuple(c or size for c, size in zip(chunk, store.shape, strict=True))
        return self._leaves[path].shape

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it, in the dtype it is stored in.

        Args:
          path: One of `shapes()`.
          index: The part, one slice a dimension; None for all.

        Raises:
          CheckpointError: If its file is missing, incomplete, or not of the recorded shape and dtype.
        """
        leaf = self._leaves[path]
        if isinstance(leaf, StoredArray):
            return read_array(self._open(path), f"{path} of the T5X checkpoint {self.path}", index)
        return leaf if index is None else leaf[index]

    def _open(self, path: str) -> tensorstore.TensorStore:
        """The opened array of a parameter."""
        if path not in self._opened:
            leaf = self._leaves[path]
            assert isinstance(leaf, StoredArray), path
            self._opened[path] = open_array(leaf, f"{path} of the T5X checkpoint {self.path}")
        return self._opened[path]


class T5XSource(StoredParams):
    """The parameters of one T5X checkpoint; a `ParamSource`.

    Args:
      path: Directory that holds the file `checkpoint`; local or gs://.

    Raises:
      CheckpointError: If the file is missing, not msgpack, or holds no parameters.
    """

    def __init__(self, path: epath.PathLike):
        """Reads the tree, but no large array."""
        path = paths.absolute(path)
        optimizer = read_index(path)
        try:
            leaves = flatten_leaves(path, optimizer["target"])
        except Exception as e:  # an index of something else lacks this or that key
            raise _unreadable(path, f"{type(e).__name__}: {e}") from e
        if not leaves or "" in leaves:
            raise _unreadable(path, "optimizer/target holds no parameters")
        step = (optimizer.get("state") or {}).get("step")
        if isinstance(step, Mapping):
            step = None
        super().__init__(path, leaves, step_of(step, path.name))

    def param_states(self) -> dict[str, np.ndarray | StoredArray]:
        """Returns the optimizer's arrays, `{path}/{v,v_row,v_col,m}`, if it stored any; reads the index again."""
        state = read_index(self.path).get("state") or {}
        leaves = flatten_leaves(self.path, state.get("param_states") or {})
        # MultiOptimizer stores None for parameters that it did not train.
        return {path: leaf for path, leaf in leaves.items() if leaf.dtype != object}


def read_index(path: epath.Path) -> dict[str, Any]:
    """Returns the tree under `optimizer`: small arrays whole, TensorStore specs for large ones.

    Args:
      path: Directory of one checkpoint.

    Raises:
      CheckpointError: If the index file is missing or damaged.
    """
    try:
        content = (path / INDEX_FILE).read_bytes()
        stored = msgpack.unpackb(content, ext_hook=_unpack_ext, raw=False, strict_map_key=False)
        return stored["optimizer"]
    except FileNotFoundError as e:
        raise _unreadable(path, "no file `checkpoint`") from e
    except Exception as e:  # msgpack raises a dozen unrelated types on damaged input
        raise _unreadable(path, f"{type(e).__name__}: {e}") from e


def flatten_leaves(path: epath.Path, node: Any) -> dict[str, np.ndarray | StoredArray]:
    """Returns the leaves of a part of the index by their `/`-joined paths, sorted.

    Args:
      path: Directory of the checkpoint.
      node: The part; a leaf has the path "".
    """
    flat: dict[str, np.ndarray | StoredArray] = {}

    def visit(prefix: str, node: Any) -> None:
        if not isinstance(node, Mapping):
            flat[prefix] = np.asarray(node)
        elif "driver" in node and "kvstore" in node:
            # The recorded driver (gfile, gcs, file) holds where the checkpoint was written, not where it lies now.
            metadata = node["metadata"]
            dtype = jnp.dtype(node.get("dtype") or metadata["dtype"])
            folder = path / _relative_path(node)
            flat[prefix] = StoredArray(paths.kvstore(folder), tuple(metadata["shape"]), dtype)
        elif _CHUNKED in node:
            parts = [np.asarray(node["chunks"][str(i)]) for i in range(len(node["chunks"]))]
            shape = [int(node["shape"][str(i)]) for i in range(len(node["shape"]))]
            flat[prefix] = np.concatenate(parts).reshape(shape)
        else:
            for key in node:
                visit(f"{prefix}/{key}" if prefix else str(key), node[key])

    visit("", node)
    return dict(sorted(flat.items()))


def open_array(leaf: StoredArray, what: str) -> tensorstore.TensorStore:
    """Opens an array of its own folder.

    Args:
      leaf: The array, a leaf of `flatten_leaves`.
      what: What an error calls it.

    Raises:
      CheckpointError: If it is missing, or not of the recorded shape and dtype.
    """
    store = open_stored(leaf.kvstore, what)
    found = (tuple(store.shape), store.dtype.numpy_dtype)
    if found != (leaf.shape, leaf.dtype):
        raise CheckpointError(
            f"{what} contradicts its own index",
            got=f"{list(found[0])} {found[1]}",
            expected=f"{list(leaf.shape)} {leaf.dtype}",
            fix="download the checkpoint again",
        )
    return store


def open_stored(kvstore: Mapping[str, Any], what: str) -> tensorstore.TensorStore:
    """Opens whatever array is in a folder; an error calls it `what`."""
    spec: dict[str, Any] = {"driver": "zarr", "kvstore": dict(kvstore)}
    try:
        store = tensorstore.open(spec, open=True, read=True).result()
        if store.fill_value is None:
            # Writers without a fill value store every chunk, so a missing one is a lost one and not zeros.
            spec["fill_missing_data_reads"] = False
            store = tensorstore.open(spec, open=True, read=True).result()
    except ValueError as e:
        raise _incomplete(what, e) from e
    return store


def read_array(
    store: tensorstore.TensorStore, what: str, index: tuple[slice, ...] | None = None
) -> np.ndarray:
    """Reads an opened array or a part of it; a missing chunk is a CheckpointError."""
    try:
        return (store if index is None else store[index]).read().result()
    except ValueError as e:
        raise _incomplete(what, e) from e


def step_of(stored: Any, name: str) -> int | None:
    """Returns the step that is stored, else the one in the directory's name, else None."""
    if stored is not None:
        return int(np.asarray(stored))
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def _incomplete(what: str, cause: Exception) -> CheckpointError:
    """The error for an array that cannot be read."""
    return CheckpointError(
        f"Cannot read {what}",
        got=str(cause).splitlines()[0][:300],
        expected="a complete zarr array",
        fix="download the checkpoint again; a copy that was cut short looks like this",
    )


def _relative_path(spec: Mapping[str, Any]) -> str:
    """The array's folder below the checkpoint, from either generation of TensorStore specs."""
    kvstore = spec["kvstore"]
    # Only the last component: some writers recorded absolute paths of their own machine.
    return str(kvstore.get("path", spec.get("path", ""))).rstrip("/").rpartition("/")[2]


def _unpack_ext(code: int, data: bytes) -> Any:
    """Decodes the extension types that Flax's msgpack serialisation writes."""
    if code not in (_EXT_NDARRAY, _EXT_NPSCALAR):
        return msgpack.ExtType(code, data)
    shape, dtype, buffer = msgpack.unpackb(data, raw=False)
    array = np.frombuffer(buffer, dtype=jnp.dtype(dtype)).reshape(shape)
    return array if code == _EXT_NDARRAY else array[()]


def _unreadable(path: epath.Path, got: str) -> CheckpointError:
    """The error for a directory that is no T5X checkpoint."""
    return CheckpointError(
        f"Cannot read {path} as a T5X checkpoint",
        got=got,
        expected="a directory with T5X's msgpack file `checkpoint` and one folder per large array",
        fix="point at a complete checkpoint_{step} directory",
    )
