"""Writes checkpoints in T5X's format, for tests only."""

import pathlib
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import tensorstore

from prompt_tuning import tree

# Arrays this small go into the msgpack file, as older versions of T5X did; larger ones become zarr folders.
INLINE_ELEMENTS = 64


def write_t5x_checkpoint(
    path: str | pathlib.Path,
    flat_params: Mapping[str, np.ndarray],
    step: int,
    driver: str = "file",
    moments: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes `flat_params` as the T5X checkpoint `path` of `step` and returns the path.

    Args:
      path: Directory to make, by T5X's habit `.../checkpoint_{step}`.
      flat_params: Parameter path -> array, float32 or bfloat16.
      step: Recorded in the optimizer state.
      driver: Kvstore driver recorded in the index: "file", or "gfile" as older versions of T5X wrote.
      moments: Optimizer state, `{path}/{v,v_row,v_col,m}` -> array; none if None.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True)
    leaves = {
        name: _write_leaf(path, f"target/{name}", np.asarray(x), driver)
        for name, x in flat_params.items()
    }
    slots = {
        name: _write_leaf(path, f"state/param_states/{name}", np.asarray(x), driver)
        for name, x in (moments or {}).items()
    }
    state = {"step": _pack_array(np.int32(step)), "param_states": tree.unflatten(slots)}
    index = {"version": 3, "optimizer": {"target": tree.unflatten(leaves), "state": state}}
    packed = msgpack.packb(index)
    assert packed is not None
    (path / "checkpoint").write_bytes(packed)
    return path


def _write_leaf(path: pathlib.Path, name: str, array: np.ndarray, driver: str) -> Any:
    """Stores one array and returns what the index says about it."""
    if array.size <= INLINE_ELEMENTS:
        return _pack_array(array)
    folder = name.replace("/", ".")
    # Two chunks along the first axis, so that a missing one can be noticed.
    chunks = [-(-array.shape[0] // 2), *array.shape[1:]]
    kvstore = {"driver": "file", "path": f"{path / folder}/"}
    compressor = {"id": "gzip", "level": 1}
    metadata = {"shape": list(array.shape), "chunks": chunks, "compressor": compressor}
    spec = {"driver": "zarr", "dtype": array.dtype.name, "kvstore": kvstore, "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(array).result()
    slash = "/" if driver == "file" else ""
    return {**spec, "kvstore": {"driver": driver, "path": folder + slash}}


def _pack_array(array: Any) -> msgpack.ExtType:
    """One array as Flax's msgpack serialisation writes it."""
    array = np.asarray(array)
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))
