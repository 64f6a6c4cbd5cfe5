"""Writes checkpoints in the layout in which today's T5X saves through Orbax, for tests only."""

import pathlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning import tree


def write_t5x_orbax_checkpoint(
    path: str | pathlib.Path,
    flat_params: Mapping[str, np.ndarray],
    step: int,
    *,
    use_ocdbt: bool = True,
    moments: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
    """Writes `flat_params` as the checkpoint `path` of `step` and returns the path.

    Args:
      path: Directory to make, by T5X's habit `.../checkpoint_{step}`.
      flat_params: Parameter path -> array, float32 or bfloat16.
      step: Recorded in the optimizer state.
      use_ocdbt: One database, or one folder per array, as before July 2024.
      moments: Optimizer state, `{path}/{v,v_row,v_col,m}` -> array; a parameter without any gets None, as from T5X's
        MultiOptimizer.
    """
    path = pathlib.Path(path)
    moments = moments or {}
    with_moments = {name.rpartition("/")[0] for name in moments}
    slots = {name: _to_jax(x) for name, x in moments.items()}
    states = {**dict.fromkeys(flat_params.keys() - with_moments), **slots}
    params = tree.unflatten({name: _to_jax(x) for name, x in flat_params.items()})
    state = {"step": jnp.int32(step), "param_states": tree.unflatten(states)}
    with ocp.PyTreeCheckpointer(use_ocdbt=use_ocdbt) as checkpointer:
        checkpointer.save(path / "state", {"target": params, "state": state})
    (path / "dataset").mkdir()
    return path


def _to_jax(array: np.ndarray) -> jax.Array:
    """The array, an even number of rows over two devices, so that it is stored in two blocks."""
    if array.ndim < 2 or array.shape[0] % 2:
        return jnp.asarray(array)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("data",))
    return jax.device_put(array, NamedSharding(mesh, PartitionSpec("data")))
