"""Reads checkpoints in T5X's own format, one array at a time.

Such a directory holds a msgpack file `checkpoint` (the tree: small arrays whole, large ones as a TensorStore spec) and
one zarr folder per large array, `target.{path with dots}`. Parameters are under `optimizer/target`; `optimizer/state`
holds the step and Adafactor's `param_states/{path}/{m,v,v_row,v_col}`, which nothing here reads.

Source: T5X, `checkpoints.py` (format version 3; driver `file`, `gfile` or `gcs`).
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import msgpack
import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.errors import CheckpointError

INDEX_FILE = "checkpoint"
# Flax's msgpack extension types.
_EXT_NDARRAY = 1
_EXT_NPSCALAR = 3


def is_t5x_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one T5X checkpoint."""
    return (epath.Path(path) / INDEX_FILE).is_file()


class T5XSource:
    """The parameters of one T5X checkpoint; a `ParamSource`.

    Args:
      path: Directory that holds the file `checkpoint`; local or gs://.

    Raises:
      CheckpointError: If the file is missing, not msgpack, or holds no parameters.
    """

    kind = "t5x"
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()

    def __init__(self, path: epath.PathLike):
        """Reads the tree, but no large array."""
        self.path = paths.absolute(path)
        index = self.path / INDEX_FILE
        try:
            stored = msgpack.unpackb(
                index.read_bytes(), ext_hook=_unpack_ext, raw=False, strict_map_key=False
            )
            optimizer = stored["optimizer"]
            self._leaves = _flatten_target(optimizer["target"])
        except FileNotFoundError as e:
            raise _unreadable(self.path, "no file `checkpoint`") from e
        except Exception as e:  # msgpack raises a dozen unrelated types on damaged input
            raise _unreadable(self.path, f"{type(e).__name__}: {e}") from e
        step = optimizer.get("state", {}).get("step")
        self.step: int | None = _step_of(step, self.path.name)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter, as far as the index file tells."""
        return {path: _shape_dtype(leaf) for path, leaf in self._leaves.items()}

    def read(self, path: str) -> np.ndarray:
        """Returns one parameter in the dtype it is stored in.

        Args:
          path: One of `shapes()`.

        Raises:
          CheckpointError: If its file is missing, incomplete or not of the recorded shape.
        """
        leaf = self._leaves[path]
        if not _is_spec(leaf):
            return np.asarray(leaf)
        folder = self.path / _relative_path(leaf)
        try:
            array = _read_zarr(folder)
        except ValueError as e:
            raise CheckpointError(
                f"Cannot read {path} of the T5X checkpoint {self.path}",
                got=str(e).splitlines()[0][:300],
                expected=f"a complete zarr array in {folder}",
                fix="download the checkpoint again; a copy that was cut short looks like this",
            ) from e
        shape, _ = _shape_dtype(leaf)
        if array.shape != shape:
            raise CheckpointError(
                f"{path} of the T5X checkpoint {self.path} contradicts its own index",
                got=array.shape,
                expected=str(shape),
                fix="download the checkpoint again",
            )
        return array


def _read_zarr(folder: epath.Path) -> np.ndarray:
    """Reads one zarr array whole; a missing chunk is a ValueError, as every other failure."""
    # The recorded driver (gfile, gcs, file) holds where the checkpoint was written, not where it lies now.
    spec: dict[str, Any] = {"driver": "zarr", "kvstore": paths.kvstore(folder)}
    store = tensorstore.open(spec, open=True, read=True).result()
    if store.dtype.name == "uint16":
        raise ValueError("uint16 array: bfloat16 written by a version of T5X before 2022")
    if store.fill_value is None:
        # Writers without a fill value store every chunk, so a missing one is a lost one and not zeros.
        spec["fill_missing_data_reads"] = False
        store = tensorstore.open(spec, open=True, read=True).result()
    return store.read().result()


def _relative_path(spec: Mapping[str, Any]) -> str:
    """The array's folder below the checkpoint, from either generation of TensorStore specs."""
    kvstore = spec["kvstore"]
    # Only the last component: some writers recorded absolute paths of their own machine.
    return str(kvstore.get("path", spec.get("path", ""))).rstrip("/").rpartition("/")[2]


def _is_spec(leaf: Any) -> bool:
    """Whether a leaf of the index stands for an array stored elsewhere."""
    return isinstance(leaf, Mapping) and "driver" in leaf and "kvstore" in leaf


def _flatten_target(target: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens the parameters to `/`-joined paths; specs count as leaves."""
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: Any) -> None:
        if isinstance(node, Mapping) and not _is_spec(node):
            for key in sorted(node):
                visit(f"{prefix}/{key}" if prefix else str(key), node[key])
        else:
            flat[prefix] = node

    visit("", target)
    if not flat or "" in flat:
        raise ValueError("optimizer/target holds no parameters")
    return dict(sorted(flat.items()))


def _shape_dtype(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a leaf of the index."""
    if not _is_spec(leaf):
        array = np.asarray(leaf)
        return array.shape, array.dtype
    metadata = leaf["metadata"]
    dtype = leaf.get("dtype") or metadata["dtype"]
    return tuple(metadata["shape"]), jnp.dtype(dtype)


def _unpack_ext(code: int, data: bytes) -> Any:
    """Decodes the extension types that Flax's msgpack serialisation writes."""
    if code not in (_EXT_NDARRAY, _EXT_NPSCALAR):
        return msgpack.ExtType(code, data)
    shape, dtype, buffer = msgpack.unpackb(data, raw=False)
    array = np.frombuffer(buffer, dtype=jnp.dtype(dtype)).reshape(shape)
    return array if code == _EXT_NDARRAY else array[()]


def _step_of(stored: Any, name: str) -> int | None:
    """The step from the tree, else from the directory's name."""
    if stored is not None and not isinstance(stored, Mapping):
        return int(np.asarray(stored))
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def _unreadable(path: epath.Path, got: str) -> CheckpointError:
    """The error for a directory that is no T5X checkpoint."""
    return CheckpointError(
        f"Cannot read {path} as a T5X checkpoint",
        got=got,
        expected="a directory with T5X's msgpack file `checkpoint` and one folder per large array",
        fix="point at a complete checkpoint_{step} directory",
    )
