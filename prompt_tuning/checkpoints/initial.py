"""Loads the parameters that a run starts from, whoever wrote them.

A *source* (`sources.py`) names its parameters and hands them out one by one; `load_params` compares them with the model
before it reads anything, converts between the scanned and the unscanned layout, and puts every array on its devices.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from prompt_tuning import layouts
from prompt_tuning.checkpoints.sources import ParamSource, open_source
from prompt_tuning.errors import CheckpointError, ConfigError

__all__ = ["ParamSource", "load_params", "open_source"]

_DTYPES = ("float32", "bfloat16")
# Differences shown in an error; a checkpoint of another size differs everywhere.
_MAX_SHOWN = 3


def load_params(
    source: ParamSource,
    shapes: Mapping[str, Any],
    shardings: Mapping[str, jax.sharding.Sharding],
    *,
    dtype: str | Callable[[str], str] = "float32",
    model_shapes: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
    """Returns parameters on their devices. Each stored array is read once, and one at a time.

    Args:
      source: Where they are stored, in either layout.
      shapes: Path -> anything with a `shape`: the parameters to load, all or some of the model's.
      shardings: Path -> sharding, at least for the paths of `shapes`.
      dtype: "float32" or "bfloat16" for float parameters; or a function of the path.
      model_shapes: As `shapes`, of all the model's; if given, stored parameters that it does not have are an error.

    Returns:
      Path -> array of the shape asked for, in the order of `shapes`.

    Raises:
      CheckpointError: If names or shapes differ (the first are listed), or an array cannot be read.
      ConfigError: If `dtype` is unknown.
    """
    dtype_of = dtype if callable(dtype) else lambda _: dtype
    wanted = {path: tuple(leaf.shape) for path, leaf in shapes.items()}
    dtypes = {path: _float_dtype(dtype_of(path)) for path in wanted}
    stored = {path: tuple(shape) for path, (shape, _) in source.shapes().items()}
    origins = {path: _origin(path, shape, stored) for path, shape in wanted.items()}
    _check_shapes(source, wanted, origins, stored)
    if model_shapes is not None:
        _check_leftovers(source, stored, model_shapes)
    # Unscanned parameters that come from one scanned array are made together.
    groups: dict[tuple[str, ...], list[str]] = {}
    for path in wanted:
        groups.setdefault(tuple(origins[path]), []).append(path)
    loaded: dict[str, jax.Array] = {}
    num_read = 0
    for names, targets in groups.items():
        arrays = _convert(names, [source.read(name) for name in names], targets, wanted)
        num_read += len(names)
        for path, array in arrays.items():
            loaded[path] = _place(array, dtypes[path], shardings[path])
    assert num_read == len({name for names in groups for name in names}), "an array was read twice"
    assert len(loaded) == len(wanted), (len(loaded), len(wanted))
    logging.info("Loaded %d parameters from %d stored arrays", len(loaded), num_read)
    return {path: loaded[path] for path in wanted}


def _origin(path: str, shape: tuple[int, ...], stored: Mapping[str, Any]) -> list[str]:
    """The stored arrays that make up a parameter; empty if the source does not have them."""
    if path in stored:
        return [path]
    if layouts.is_stacked(path):
        names = layouts.unscanned_paths(path, shape[layouts.LAYERS_AXIS])
    else:
        scanned, layer = layouts.scanned_path(path)
        beyond = layer is not None and scanned in stored and layer >= _num_layers(stored[scanned])
        names = [] if beyond else [scanned]
    return names if names and all(name in stored for name in names) else []


def _num_layers(shape: tuple[int, ...]) -> int:
    """Layers in a stacked parameter, 0 if it is none."""
    return shape[layouts.LAYERS_AXIS] if len(shape) > layouts.LAYERS_AXIS else 0


def _converted_shape(
    path: str, shape: tuple[int, ...], origin: Sequence[str], stored: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape that the source gives, shape that the model wants), both in the layout of the source or of the model."""
    if list(origin) == [path]:
        return stored[path], shape
    if layouts.is_stacked(path):
        wanted = _split_shapes(path, shape)
        # All layers are alike; the first that is not is the one to show.
        odd = [name for name in origin if stored[name] != wanted[name]]
        name = odd[0] if odd else origin[0]
        return stored[name], wanted[name]
    return _split_shapes(origin[0], stored[origin[0]])[path], shape


def _split_shapes(path: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of the unscanned parameters in a scanned one."""
    split = functools.partial(layouts.split_layers, path)
    parts = jax.eval_shape(split, jax.ShapeDtypeStruct(shape, jnp.float32))
    return {name: part.shape for name, part in parts.items()}


def _check_shapes(
    source: ParamSource,
    wanted: Mapping[str, tuple[int, ...]],
    origins: Mapping[str, list[str]],
    stored: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises CheckpointError unless every parameter is stored, in the right shape."""
    got: dict[str, str] = {}
    expected: dict[str, str] = {}
    for path, origin in origins.items():
        if not origin:
            got[path], expected[path] = "missing", str(list(wanted[path]))
            continue
        has, needs = _converted_shape(path, wanted[path], origin, stored)
        if has != needs:
            got[path], expected[path] = str(list(has)), str(list(needs))
    if not got:
        return
    shown = list(got)[:_MAX_SHOWN]
    nothing_fits = len(got) == len(origins)
    raise CheckpointError(
        f"The checkpoint {getattr(source, 'path', source)} is of another size or model:"
        f" {len(got)} of {len(origins)} parameters differ",
        got={path: got[path] for path in shown},
        expected=", ".join(f"{path} {expected[path]}" for path in shown),
        fix="use the model gin file of this checkpoint's size and version, or another checkpoint",
        name=shown[0] if nothing_fits and got[shown[0]] == "missing" else None,
        candidates=stored,
    )


def _check_leftovers(
    source: ParamSource, stored: Mapping[str, tuple[int, ...]], model_shapes: Mapping[str, Any]
) -> None:
    """Raises CheckpointError if the source has parameters that the model has not."""
    model = {path: tuple(leaf.shape) for path, leaf in model_shapes.items()}
    extra = _unscanned_names(stored) - _unscanned_names(model)
    if extra:
        raise CheckpointError(
            f"The checkpoint {getattr(source, 'path', source)} has {len(extra)} parameters that the model has not",
            got=sorted(extra)[:_MAX_SHOWN],
            expected="exactly the parameters of the model",
            fix="use the model gin file of this checkpoint's size and version",
        )


def _unscanned_names(shapes: Mapping[str, tuple[int, ...]]) -> set[str]:
    """The names of all parameters in the unscanned layout."""
    return {
        name
        for path, shape in shapes.items()
        for name in layouts.unscanned_paths(path, _num_layers(shape))
    }


def _convert(
    names: Sequence[str],
    arrays: list[np.ndarray],
    targets: Sequence[str],
    wanted: Mapping[str, tuple[int, ...]],
) -> dict[str, np.ndarray]:
    """The target parameters made of the stored arrays."""
    if list(names) == list(targets):
        return dict(zip(targets, arrays, strict=True))
    first = targets[0]
    if not layouts.is_stacked(first):
        parts = layouts.split_layers(names[0], arrays[0])
        return {path: np.asarray(parts[path]) for path in targets}
    assert len(targets) == 1, targets
    shape = wanted[first]
    # Only attention kernels have heads: first in the output projection, before the last dimension elsewhere.
    heads = shape[0] if first.endswith("out/kernel") else shape[-2]
    layers = layouts.stack_layers(
        first, arrays, num_layers=shape[layouts.LAYERS_AXIS], num_heads=heads
    )
    return {first: np.asarray(layers)}


def _place(array: np.ndarray, dtype: np.dtype, sharding: jax.sharding.Sharding) -> jax.Array:
    """The array on the devices of all processes, each of which holds it whole on its host."""
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(dtype, copy=False)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _float_dtype(name: str) -> np.dtype:
    """The dtype called `name`, one of the two that parameters may have."""
    if str(name) not in _DTYPES:
        raise ConfigError(
            "Unknown dtype of parameters",
            got=str(name),
            expected=f"one of {list(_DTYPES)}",
            fix="bind utils.RestoreCheckpointConfig.dtype to one of these",
            name=str(name),
            candidates=_DTYPES,
        )
    return jnp.dtype(name)
