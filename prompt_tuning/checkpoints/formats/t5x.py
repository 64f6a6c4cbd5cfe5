"""Reads checkpoints in T5X's older, own format, array by array or part by part.

Such a directory holds a msgpack file `checkpoint` (the tree: small arrays whole, large ones as a TensorStore spec) and
one zarr folder per large array, `target.{path with dots}`. Parameters are under `optimizer/target`; `optimizer/state`
holds the step and Adafactor's `param_states/{path}/{m,v,v_row,v_col}`.

Source: T5X, `checkpoints.py` (format version 3; driver `file`, `gfile` or `gcs`). As there, arrays that version 2 wrote
as uint16 in place of bfloat16 are refused.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import serialization

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats.arrays import StoredArray, StoredArrays
from prompt_tuning.errors import CheckpointError, unreadable

INDEX_FILE = "checkpoint"
FIX = "download the checkpoint again; a copy that was cut short looks like this"


def is_t5x_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of one T5X checkpoint."""
    return (epath.Path(path) / INDEX_FILE).is_file()


class T5XParams(StoredArrays):
    """The parameters of one T5X checkpoint in either of its formats; a `ParamSource`.

    Args:
      path: Directory of the checkpoint.
      params: Its parameters by their paths.
      states: Its optimizer's arrays, `{path}/{v,v_row,v_col,m}`; none if it stored none.
      step: Its step; None if it is not known.

    Attributes:
      param_states: The optimizer's arrays.
    """

    kind = "t5x"
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()
    settings: Mapping[str, Any] | None = None

    def __init__(
        self,
        path: epath.Path,
        params: Mapping[str, np.ndarray | StoredArray],
        states: Mapping[str, np.ndarray | StoredArray],
        step: int | None,
    ):
        """Opens nothing."""
        where = f"the T5X checkpoint {path}"
        super().__init__(params, where=where, fix=FIX)
        self.path, self.step = path, step
        self.param_states = StoredArrays(states, where=f"the optimizer state of {where}", fix=FIX)


class T5XSource(T5XParams):
    """The parameters of one T5X checkpoint; a `ParamSource`.

    Args:
      path: Directory that holds the file `checkpoint`; local or gs://.

    Raises:
      CheckpointError: If the file is missing, not msgpack, or holds no parameters.
    """

    def __init__(self, path: epath.PathLike):
        """Reads the tree, but no large array."""
        path = paths.absolute(path)
        try:
            content = (path / INDEX_FILE).read_bytes()
            stored: Any = serialization.msgpack_restore(content)
            params = flatten_leaves(path, stored["optimizer"]["target"])
            state = stored["optimizer"].get("state") or {}
            states = flatten_leaves(path, state.get("param_states") or {})
        except FileNotFoundError as e:
            raise _unreadable(path, "no file `checkpoint`") from e
        # msgpack raises a dozen unrelated types on damaged input; an index of something else lacks this or that key.
        except Exception as e:
            raise _unreadable(path, e) from e
        if not params or "" in params:
            raise _unreadable(path, "optimizer/target holds no parameters")
        step = state.get("step")
        if isinstance(step, Mapping):
            step = None
        # MultiOptimizer stores None for parameters that it did not train.
        states = {name: leaf for name, leaf in states.items() if leaf.dtype != object}
        super().__init__(path, params, states, paths.step_of(step, path.name))


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
            # Either generation of TensorStore specs; only the last component, as some writers recorded absolute paths
            # of their own machine.
            recorded = str(node["kvstore"].get("path", node.get("path", "")))
            name = recorded.rstrip("/").rpartition("/")[2]
            if name in ("", ".", ".."):
                raise ValueError(f"an array in the folder {recorded!r}")
            folder = path / name
            flat[prefix] = StoredArray(paths.kvstore(folder), tuple(metadata["shape"]), dtype)
        else:
            for key in node:
                visit(f"{prefix}/{key}" if prefix else str(key), node[key])

    visit("", node)
    return dict(sorted(flat.items()))


def _unreadable(path: epath.Path, got: object) -> CheckpointError:
    """The error for a directory that is no T5X checkpoint."""
    return unreadable(
        f"{path} as a T5X checkpoint",
        got,
        expected="a directory with T5X's msgpack file `checkpoint` and one folder per large array",
        fix="point at a complete checkpoint_{step} directory",
    )
