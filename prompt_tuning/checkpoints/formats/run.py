"""Reads one `checkpoint_{step}` directory of this project without Orbax, leaf by leaf.

Orbax's own readers meet at barriers, so one process alone may not call them; looking whether a checkpoint is sound, or
taking one parameter out of it, must not need all processes. `manager.py` pins the layout that is read here: item
`state` (zarr in OCDBT, leaf names joined by dots: `trainable.encoder.prompt.prompt.prompt`) and item `metadata` (JSON).
"""

import json
from typing import Any

import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.errors import CheckpointError

STATE_ITEM = "state"
METADATA_ITEM = "metadata"
TRAINABLE = "trainable/"
# States up to this size are read whole to see whether they are sound; larger ones are only listed. Unit: bytes.
_READ_WHOLE_BYTES = 256 * 2**20

_ZARRAY = "/.zarray"
_Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


def is_run_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one checkpoint of this project, sound or not."""
    path = epath.Path(path)
    return (path / STATE_ITEM).is_dir() and (path / METADATA_ITEM).is_dir()


def read_metadata(path: epath.PathLike) -> dict[str, Any]:
    """Returns what the run recorded beside the state.

    Args:
      path: A `checkpoint_{step}` directory.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    try:
        return json.loads((epath.Path(path) / METADATA_ITEM / "metadata").read_text())
    except (OSError, ValueError) as e:
        raise _damaged(path, e) from e


def read_shapes(path: epath.PathLike) -> _Shapes:
    """Returns path -> (shape, dtype) of every leaf of the state, `trainable/...`, `opt_state/...`, `step`, `rng`.

    Args:
      path: A `checkpoint_{step}` directory.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    try:
        store = tensorstore.KvStore.open(_database(path)).result()
        keys = [key.decode() for key in store.list().result()]
        names = sorted(key.removesuffix(_ZARRAY) for key in keys if key.endswith(_ZARRAY))
        opened = {name: _open(path, name) for name in names}
    except (OSError, ValueError) as e:
        raise _damaged(path, e) from e
    if not opened:
        raise _damaged(path, "no arrays")
    return {
        name.replace(".", "/"): (tuple(array.shape), array.dtype.numpy_dtype)
        for name, array in opened.items()
    }


def read_trainable(path: epath.PathLike) -> _Shapes:
    """Returns parameter path -> (shape, dtype) of the trainable parameters of one checkpoint.

    Args:
      path: A `checkpoint_{step}` directory.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    shapes = read_shapes(path)
    return {k.removeprefix(TRAINABLE): v for k, v in shapes.items() if k.startswith(TRAINABLE)}


def read_leaf(
    path: epath.PathLike, name: str, index: tuple[slice, ...] | None = None
) -> np.ndarray:
    """Returns one leaf of the state, or a part of it.

    Args:
      path: A `checkpoint_{step}` directory.
      name: One of `read_shapes`, for example `trainable/encoder/prompt/prompt/prompt`.
      index: The part, one slice a dimension; None for all.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    try:
        store = _open(path, name.replace("/", "."))
        return (store if index is None else store[index]).read().result()
    except (OSError, ValueError) as e:
        raise _damaged(path, e) from e


def read_chunks(path: epath.PathLike, name: str) -> tuple[int, ...]:
    """Returns the shape of the blocks in which one leaf of the state is stored.

    Args:
      path: A `checkpoint_{step}` directory.
      name: One of `read_shapes`.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    try:
        store = _open(path, name.replace("/", "."))
    except (OSError, ValueError) as e:
        raise _damaged(path, e) from e
    chunk = store.chunk_layout.read_chunk.shape or ()
    return tuple(c or size for c, size in zip(chunk, store.shape, strict=True))


def find_damage(path: epath.PathLike) -> str | None:
    """Returns what is wrong with a checkpoint, or None if it can be restored.

    Args:
      path: A `checkpoint_{step}` directory that was given its final name.
    """
    path = epath.Path(path)
    try:
        read_metadata(path)
        # Orbax reads this one before any array.
        expected = json.loads((path / STATE_ITEM / "_METADATA").read_text())["tree_metadata"]
        shapes = read_shapes(path)
        if len(expected) != len(shapes):
            return f"{len(shapes)} arrays of {len(expected)}"
        if sum(np.prod(s) * d.itemsize for s, d in shapes.values()) <= _READ_WHOLE_BYTES:
            for name in shapes:
                read_leaf(path, name)
    except (CheckpointError, OSError, ValueError, KeyError) as e:
        return str(e)
    return None


def _database(path: epath.PathLike) -> dict[str, Any]:
    """The key-value database that holds all arrays of the state."""
    return {"driver": "ocdbt", "base": paths.kvstore(epath.Path(path) / STATE_ITEM)}


def _open(path: epath.PathLike, name: str) -> tensorstore.TensorStore:
    """Opens the array called `name` (with dots)."""
    kvstore = {**_database(path), "path": f"{name}/"}
    return tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result()


def _damaged(path: epath.PathLike, cause: Any) -> CheckpointError:
    """The error for a checkpoint that cannot be read."""
    return CheckpointError(
        f"Cannot read the checkpoint {path}",
        got=str(cause).splitlines()[0][:300],
        expected="a complete checkpoint_{step} directory of a run",
        fix="use another step, or delete this directory: the run then goes on from the step before",
    )
