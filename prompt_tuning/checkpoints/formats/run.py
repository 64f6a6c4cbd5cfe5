"""Reads one `checkpoint_{step}` directory of this project without Orbax, leaf by leaf.

Orbax's own readers meet at barriers, so one process alone may not call them; looking whether a checkpoint is sound, or
taking one parameter out of it, must not need all processes. `manager.py` pins the layout that is read here: item
`state` (zarr in OCDBT, leaf names joined by dots: `trainable.encoder.prompt.prompt.prompt`) and item `metadata` (JSON).
"""

import functools
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import file_digests, json_files
from prompt_tuning.checkpoints.formats import orbax_item
from prompt_tuning.checkpoints.formats.arrays import StoredArrays
from prompt_tuning.errors import CheckpointError, unreadable

STATE_ITEM = "state"
METADATA_ITEM = "metadata"
TRAINABLE = "trainable/"
# States up to this size are read whole to see whether they are sound; larger ones are only listed. Unit: bytes.
_READ_WHOLE_BYTES = 256 * 2**20
_WHOLE = "a complete checkpoint_{step} directory of a run"
_FIX = "use another step, or delete this directory: the run then goes on from the step before"


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
    file = epath.Path(path) / METADATA_ITEM / "metadata"
    return json_files.read(file, expected=_WHOLE, fix=_FIX)


def open_state(path: epath.PathLike) -> StoredArrays:
    """Returns the leaves of the state: `trainable/...`, `opt_state/...`, `step`, `rng`; reads their headers only.

    Args:
      path: A `checkpoint_{step}` directory.

    Raises:
      CheckpointError: If it is missing or damaged.
    """
    item = epath.Path(path) / STATE_ITEM
    leaves = orbax_item.read_leaves(item, functools.partial(_damaged, path))
    if not leaves:
        raise _damaged(path, "no arrays")
    return StoredArrays(leaves, where=f"the checkpoint {path}", fix=_FIX)


def trainable_shapes(state: StoredArrays) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns parameter path -> (shape, dtype) of the trainable parameters among the leaves of a state."""
    return orbax_item.below(TRAINABLE, state.shapes())


def find_damage(path: epath.PathLike) -> str | None:
    """Returns what is wrong with a checkpoint, or None if it can be restored.

    Args:
      path: A `checkpoint_{step}` directory that was given its final name.
    """
    try:
        check_digests(path)
        read_metadata(path)
        state = open_state(path)
        shapes = state.shapes()
        # Of a checkpoint without digests, to read it is all that can be done.
        is_small = sum(np.prod(s) * d.itemsize for s, d in shapes.values()) <= _READ_WHOLE_BYTES
        for name in shapes if is_small and not file_digests.are_in(epath.Path(path)) else ():
            state.read(name)
    except CheckpointError as e:
        return str(e)
    return None


def check_digests(path: epath.PathLike) -> None:
    """Raises CheckpointError if a file of a checkpoint is not what was written, as far as its digests tell.

    Args:
      path: A `checkpoint_{step}` directory; those of earlier versions have no digests.
    """
    damage = file_digests.find_damage(epath.Path(path))
    if damage:
        raise _damaged(path, damage)


def _damaged(path: epath.PathLike, cause: object) -> CheckpointError:
    """The error for a checkpoint that cannot be read."""
    return unreadable(f"the checkpoint {path}", cause, expected=_WHOLE, fix=_FIX)
