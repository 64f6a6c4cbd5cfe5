"""Reads the checkpoints that today's T5X saves by default, through Orbax; array by array or part by part.

Such a directory holds the item `state`: its file `_METADATA` (JSON) lists the leaves, and the arrays `target.{path with
dots}`, `state.step` and `state.param_states...` are zarr, in one OCDBT database or, before July 2024, in a folder each.
Beside it lies the item `dataset`, empty unless T5X was told to save its place in the data. Orbax's own readers meet at
barriers, so that one process alone may not call them; here, none is called.

Source: T5X, `checkpoints.py` (`OrbaxCheckpointManagerInterface`).
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats import run, t5x
from prompt_tuning.errors import CheckpointError

_STATE = "state"
_DATASET = "dataset"
_LEAVES = "_METADATA"
_DATABASE = "manifest.ocdbt"
_STEP = "state/step"
_TARGET = "target/"
_PARAM_STATES = "state/param_states/"
# Arrays whose headers are read at any time.
_HEADERS_AT_ONCE = 64


def is_t5x_orbax_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one checkpoint that T5X saved through Orbax, sound or not."""
    path = epath.Path(path)
    if run.is_run_checkpoint(path) or not (path / _STATE).is_dir():
        return False
    if (path / _DATASET).is_dir():
        return True
    leaves = path / _STATE / _LEAVES
    # Runs of this program list other names; one that lost its metadata is none of T5X's.
    return leaves.is_file() and "('target'," in leaves.read_text()


class T5XOrbaxSource(t5x.StoredParams):
    """The parameters of one checkpoint that T5X saved through Orbax; a `ParamSource`.

    Args:
      path: Directory that holds the item `state`; local or gs://.

    Raises:
      CheckpointError: If it is damaged, or holds no parameters.
    """

    def __init__(self, path: epath.PathLike):
        """Reads names, shapes and the step, but no large array."""
        path = paths.absolute(path)
        names = _read_names(path)
        self._arrays = _read_headers(path, names)
        params = {
            name.removeprefix(_TARGET): leaf
            for name, leaf in self._arrays.items()
            if name.startswith(_TARGET)
        }
        if not params:
            raise _unreadable(path, f"no parameters under target, but {', '.join(names[:5])}")
        step = None
        if _STEP in self._arrays:
            what = f"the step of the T5X checkpoint {path}"
            step = t5x.read_array(t5x.open_array(self._arrays[_STEP], what), what)
        super().__init__(path, params, t5x.step_of(step, path.name))

    def param_states(self) -> dict[str, np.ndarray | t5x.StoredArray]:
        """Returns the optimizer's arrays, `{path}/{v,v_row,v_col,m}`, if it stored any."""
        return {
            name.removeprefix(_PARAM_STATES): leaf
            for name, leaf in self._arrays.items()
            if name.startswith(_PARAM_STATES)
        }


def _read_names(path: epath.Path) -> list[str]:
    """The names of all arrays, `target/...` and `state/...`, sorted."""
    file = path / _STATE / _LEAVES
    try:
        leaves = json.loads(file.read_text())["tree_metadata"].values()
        return sorted(
            "/".join(str(key["key"]) for key in leaf["key_metadata"])
            for leaf in leaves
            # None and empty dicts have no array: MultiOptimizer's state of a parameter that it did not train.
            if not leaf["value_metadata"].get("skip_deserialize", False)
        )
    except FileNotFoundError as e:
        raise _unreadable(path, f"no file {_STATE}/{_LEAVES}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise _unreadable(path, f"{_STATE}/{_LEAVES}: {type(e).__name__}: {e}") from e


def _read_headers(path: epath.Path, names: list[str]) -> dict[str, t5x.StoredArray]:
    """The arrays with the shapes and dtypes that their own headers tell."""
    in_database = (path / _STATE / _DATABASE).is_file()
    arrays = {}
    for first in range(0, len(names), _HEADERS_AT_ONCE):
        some = names[first : first + _HEADERS_AT_ONCE]
        stores = [_kvstore(path, name, in_database) for name in some]
        opening = [_start_opening(kvstore) for kvstore in stores]
        for name, kvstore, future in zip(some, stores, opening, strict=True):
            try:
                store = future.result()
            except ValueError as e:
                raise _unreadable(path, f"{name}: {str(e).splitlines()[0][:300]}") from e
            found = (tuple(store.shape), store.dtype.numpy_dtype)
            arrays[name] = t5x.StoredArray(kvstore, *found)
    return arrays


def _start_opening(kvstore: Mapping[str, Any]) -> tensorstore.Future:
    """Opens an array in the background."""
    return tensorstore.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True)


def _kvstore(path: epath.Path, name: str, in_database: bool) -> dict[str, Any]:
    """TensorStore's name for the folder of an array."""
    folder = name.replace("/", ".")
    if in_database:
        return {"driver": "ocdbt", "base": paths.kvstore(path / _STATE), "path": f"{folder}/"}
    return paths.kvstore(path / _STATE / folder)


def _unreadable(path: epath.Path, got: str) -> CheckpointError:
    """The error for a directory that cannot be read."""
    return CheckpointError(
        f"Cannot read {path} as a T5X checkpoint",
        got=got,
        expected=f"the item {_STATE} with its file {_LEAVES} and all arrays that this lists",
        fix="download the checkpoint again, or use another step; a copy or a save that was cut short looks like this",
    )
