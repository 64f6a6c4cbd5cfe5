"""Reads the checkpoints that today's T5X saves by default, through Orbax; array by array or part by part.

Such a directory holds the item `state` with the arrays `target/{path}`, `state/step` and `state/param_states/...`.
Beside it lies the item `dataset`, empty unless T5X was told to save its place in the data. Orbax's own readers meet at
barriers, so that one process alone may not call them; here, none is called.

Source: T5X, `checkpoints.py` (`OrbaxCheckpointManagerInterface`).
"""

import functools

from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats import orbax_item, run, t5x
from prompt_tuning.checkpoints.formats.arrays import StoredArrays
from prompt_tuning.errors import CheckpointError, unreadable

_STATE = "state"
_DATASET = "dataset"
_STEP = "state/step"
_TARGET = "target/"
_PARAM_STATES = "state/param_states/"


def is_t5x_orbax_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one checkpoint that T5X saved through Orbax, sound or not."""
    path = epath.Path(path)
    if run.is_run_checkpoint(path) or not (path / _STATE).is_dir():
        return False
    if (path / _DATASET).is_dir():
        return True
    leaves = path / _STATE / orbax_item.LEAVES_FILE
    # Runs of this program list other names; one that lost its metadata is none of T5X's.
    return leaves.is_file() and "('target'," in leaves.read_text()


class T5XOrbaxSource(t5x.T5XParams):
    """The parameters of one checkpoint that T5X saved through Orbax; a `ParamSource`.

    Args:
      path: Directory that holds the item `state`; local or gs://.

    Raises:
      CheckpointError: If it is damaged, or holds no parameters.
    """

    def __init__(self, path: epath.PathLike):
        """Reads names, shapes and the step, but no large array."""
        path = paths.absolute(path)
        leaves = orbax_item.read_leaves(path / _STATE, functools.partial(_unreadable, path))
        params = orbax_item.below(_TARGET, leaves)
        if not params:
            raise _unreadable(
                path, f"no parameters under target, but {', '.join(list(leaves)[:5])}"
            )
        step = None
        if _STEP in leaves:
            step = StoredArrays(leaves, where=f"the T5X checkpoint {path}", fix=t5x.FIX).read(_STEP)
        states = orbax_item.below(_PARAM_STATES, leaves)
        super().__init__(path, params, states, paths.step_of(step, path.name))


def _unreadable(path: epath.Path, got: object) -> CheckpointError:
    """The error for a directory that cannot be read."""
    return unreadable(
        f"{path} as a T5X checkpoint",
        got,
        expected=f"the item {_STATE} with its file {orbax_item.LEAVES_FILE} and all arrays that this lists",
        fix="download the checkpoint again, or use another step; a copy or a save that was cut short looks like this",
    )
