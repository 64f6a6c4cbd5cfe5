"""Loads the parameters that a run starts from, whoever wrote them.

A *source* (`source.py`) names its parameters and hands them out part by part; `load_params` compares them with the
model before it reads anything, and `placement.py` moves what each device holds into place, converting between the
scanned and the unscanned layout. Peak host memory is what the host's devices hold plus a few pieces in flight. Kernels
that are to be int8 are placed in bfloat16 first, one array at a time: a channel's scale depends on all of its inputs,
wherever they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from prompt_tuning.checkpoints import placement, shared_reads
from prompt_tuning.checkpoints.config import DTYPES
from prompt_tuning.checkpoints.placement import Link
from prompt_tuning.checkpoints.source import ParamSource, recorded_model
from prompt_tuning.errors import CheckpointError, check_choice
from prompt_tuning.params import int8, layouts
from prompt_tuning.params.names import DECODER_EMBEDDING, EMBEDDING, PROMPT_PATH, TABLE

_STORED_DTYPES = ("float32", "bfloat16", "float16", "int8")
# Differences shown in an error; a checkpoint of another size differs everywhere.
_MAX_SHOWN = 3
# What one setting counts: path -> (axis, the setting).
_COUNTED = {
    PROMPT_PATH: (0, "PROMPT_LENGTH"),
    EMBEDDING: (0, "NUM_EMBEDDINGS"),
    DECODER_EMBEDDING: (0, "NUM_EMBEDDINGS"),
    "decoder/logits_dense/kernel": (1, "NUM_EMBEDDINGS"),
}

_Shapes = Mapping[str, tuple[int, ...]]


def load_params(
    source: ParamSource,
    shapes: Mapping[str, Any],
    shardings: Mapping[str, jax.sharding.Sharding],
    *,
    dtype: str | Callable[[str], str] = "float32",
    model_shapes: Mapping[str, Any] | None = None,
) -> dict[str, jax.Array]:
    """Returns parameters on their devices. Each process reads what its devices hold, once, and a piece at a time.

    What several processes hold alike is read by them in equal shares (`shared_reads`).

    Args:
      source: Where they are stored, in either layout.
      shapes: Path -> anything with a `shape`: the parameters to load, all or some of the model's; for int8 with the
        kernels' scales (`int8.with_scales`).
      shardings: Path -> sharding, at least for the paths of `shapes`.
      dtype: "float32", "bfloat16" or "int8"; or a function of the path, of scales too.
      model_shapes: As `shapes`, of all the model's; if given, stored parameters that it does not have are an error.

    Returns:
      Path -> array of the shape asked for, in the order of `shapes`.

    Raises:
      CheckpointError: If names, shapes or dtypes differ (the first are listed), or an array cannot be read.
      ConfigError: If `dtype` is unknown.
    """
    dtype_of = dtype if callable(dtype) else lambda path: int8.held_dtype(path, dtype)
    wanted = {path: tuple(leaf.shape) for path, leaf in shapes.items()}
    names = {path: dtype_of(path) for path in wanted}
    for name in {*names.values()}:
        check_choice("utils.RestoreCheckpointConfig.dtype", name, DTYPES)
    dtypes = {path: jnp.dtype(name) for path, name in names.items()}
    read = stored_dtypes(source, wanted, dtypes)
    groups = links_of(source, {path: wanted[path] for path in read})
    if model_shapes is not None:
        _check_leftovers(source, model_shapes)
    read_as = {
        path: shared_reads.shares_of(shardings[path], wanted[path], dtype)
        for path, dtype in read.items()
    }
    targets = {
        path: placement.Target(wanted[path], dtype, _boxes_here(read_as[path], wanted[path]))
        for path, dtype in read.items()
    }
    loaded: dict[str, jax.Array] = {}
    for parts in placement.assemble(source, groups, targets):
        names = list(parts)
        for path in names:
            assert path not in loaded, f"{path} was loaded twice"
            shape, by_box = wanted[path], parts.pop(path)
            # Each process has the regions of its own devices on its host.
            array = jax.make_array_from_callback(
                shape,
                read_as[path],
                lambda index, at=by_box, shape=shape: at[placement.to_box(index or (), shape)],
                dtype=targets[path].dtype,
            )
            if array.dtype == dtypes[path]:
                loaded[path] = shared_reads.exchange(array, shardings[path])
            else:
                scale = int8.scale_path(path)
                loaded[path], loaded[scale] = int8.quantize(
                    path, array, (shardings[path], shardings[scale])
                )
            del array, by_box
        # Not more than one group at a time is on its way to the devices.
        jax.block_until_ready([loaded[path] for path in names])
    assert set(loaded) == set(wanted), sorted(set(loaded) ^ set(wanted))[:_MAX_SHOWN]
    num_stored = len({link.stored for links in groups for link in links})
    logging.info("Loaded %d parameters from %d stored arrays", len(loaded), num_stored)
    return {path: loaded[path] for path in wanted}


def stored_dtypes(
    source: ParamSource, wanted: _Shapes, dtypes: Mapping[str, np.dtype]
) -> dict[str, np.dtype]:
    """Returns what to read in which dtype, so that it can be held as asked: kernels for int8 may be stored as floats.

    Args:
      source: Where they are stored, in either layout.
      wanted: Path -> shape of the parameters to hold, scales included.
      dtypes: Path -> dtype to hold them in.

    Returns:
      `dtypes`, with bfloat16 for kernels that are still to be made int8, and without the scales of these.

    Raises:
      CheckpointError: If something is stored as int8 and wanted as floats.
    """
    stored = {path: tuple(shape) for path, (shape, _) in source.shapes().items()}
    origins = {path: _origin(path, shape, stored) for path, shape in wanted.items()}
    is_int8 = {
        path: any(source.shapes()[name][1] == jnp.int8 for name in names)
        for path, names in origins.items()
    }
    floats = [path for path, held in dtypes.items() if is_int8[path] and held != jnp.int8]
    if floats:
        raise CheckpointError(
            f"The checkpoint {source.path} holds int8, from which the weights do not come back",
            got=f"{floats[0]} wanted as {dtypes[floats[0]]}",
            expected="'int8' for all of its kernels, none of which can be trained",
            fix="bind utils.RestoreCheckpointConfig.dtype = 'int8', or use the checkpoint that was converted",
        )
    made = {p for p, held in dtypes.items() if held == jnp.int8 and not is_int8[p]}
    scales = {int8.scale_path(path) for path in made}
    return {
        path: jnp.dtype(jnp.bfloat16) if path in made else held
        for path, held in dtypes.items()
        if path not in scales
    }


def whole_arrays(
    source: ParamSource,
    groups: Sequence[Sequence[Link]],
    shapes: _Shapes,
    dtypes: Mapping[str, np.dtype],
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields parameters one after the other, in the order of the links; holds those of a group and what is on its way.

    Args:
      source: Where they are stored.
      groups: From `links_of`.
      shapes: Path -> shape, at least of what the links make.
      dtypes: Path -> dtype of what the links make.

    Raises:
      CheckpointError: If an array cannot be read.
    """
    targets = {
        path: placement.Target(shapes[path], dtype, frozenset({placement.whole(shapes[path])}))
        for path, dtype in dtypes.items()
    }
    for parts in placement.assemble(source, groups, targets):
        for path, by_box in parts.items():
            (array,) = by_box.values()
            yield path, array


def unscanned_shapes(source: ParamSource) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of the source's parameters, layer by layer."""
    recorded = recorded_model(source).get("relative_bias_per_layer")
    shapes: dict[str, tuple[int, ...]] = {}
    for path, (shape, _) in source.shapes().items():
        if not layouts.is_stacked(path):
            shapes[path] = tuple(shape)
            continue
        per_layer = bool(recorded)
        if path.endswith(TABLE) and recorded is None:
            # Models with a table per layer and those that repeat one look alike when they are scanned.
            tables = np.moveaxis(source.read(path), layouts.LAYERS_AXIS, 0)
            per_layer = any(not np.array_equal(table, tables[0]) for table in tables)
        num_layers = shape[layouts.LAYERS_AXIS]
        names = layouts.unscanned_paths(path, num_layers, relative_bias_per_layer=per_layer)
        shapes |= dict.fromkeys(names, layouts.layer_shape(path, tuple(shape)))
    return shapes


def kept_dtypes(source: ParamSource, groups: Sequence[Sequence[Link]]) -> dict[str, np.dtype]:
    """Returns path -> dtype of what the links make, as it is stored; float32 for what is stored in one no run holds."""
    stored = {link.target: source.shapes()[link.stored][1] for links in groups for link in links}
    return {
        path: dtype if dtype.name in DTYPES else np.dtype(np.float32)
        for path, dtype in stored.items()
    }


def holds(source: ParamSource, path: str, shape: tuple[int, ...]) -> bool:
    """Returns whether a source has a parameter of this path and shape, in either layout."""
    stored = {name: tuple(s) for name, (s, _) in source.shapes().items()}
    return bool(_origin(path, shape, stored))


def links_of(source: ParamSource, wanted: _Shapes) -> list[list[Link]]:
    """Returns which stored arrays make up which parameters; reads none.

    Args:
      source: Where they are stored, in either layout.
      wanted: Path -> shape of the parameters to make.

    Returns:
      Groups of links; those that share a stored array or a parameter are in one group.

    Raises:
      CheckpointError: If a parameter is missing or of another shape, or stored in a dtype that no T5 has.
    """
    stored = {path: tuple(shape) for path, (shape, _) in source.shapes().items()}
    origins = {path: _origin(path, shape, stored) for path, shape in wanted.items()}
    _check_shapes(source, wanted, origins, stored)
    _check_dtypes(source, origins)
    groups: dict[str, list[Link]] = {}
    for path, names in origins.items():
        # Unscanned parameters that come from one scanned array are made together.
        group = groups.setdefault(names[0], [])
        shape = wanted[path]
        if names == [path]:
            group.append(Link(path, path))
        elif layouts.is_stacked(path) and len(names) > 1:
            group += [Link(name, path, (layer,)) for layer, name in enumerate(names)]
        else:
            # One table for all layers, one of the layers, or the table that all layers have to agree on.
            layer = layouts.scanned_path(path)[1]
            stacked = shape if layouts.is_stacked(path) else stored[names[0]]
            layers = range(stacked[layouts.LAYERS_AXIS]) if layer is None else [layer]
            group.append(Link(names[0], path, tuple(layers)))
    used = [link.stored for links in groups.values() for link in links if link.layers == ()]
    assert len(used) == len(set(used)), "an array enters two parameters"
    return list(groups.values())


def _boxes_here(
    sharding: jax.sharding.Sharding, shape: tuple[int, ...]
) -> frozenset[placement.Box]:
    """The regions that the devices of this process hold."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    return frozenset(placement.to_box(index or (), shape) for index in indices)


def _origin(path: str, shape: tuple[int, ...], stored: _Shapes) -> list[str]:
    """The stored arrays that make up a parameter; empty if the source does not have them."""
    if layouts.is_stacked(path):
        candidates = layouts.all_unscanned_paths(path, shape[layouts.LAYERS_AXIS])
        if path in stored:
            apart = [name for names in candidates for name in names if name in stored]
            if apart:
                raise CheckpointError(
                    f"{path} is stored as a whole, and some of its layers once more as they were trained",
                    got=apart[:_MAX_SHOWN],
                    expected="every layer under one name",
                    fix="load it with scan_layers = False, as it was trained",
                )
            return [path]
        return next((c for c in candidates if all(name in stored for name in c)), [])
    if path in stored:
        return [path]
    scanned, layer = layouts.scanned_path(path)
    if scanned not in stored or (layer or 0) >= _num_layers(stored[scanned]):
        return []
    return [scanned]


def _num_layers(shape: tuple[int, ...]) -> int:
    """Layers in a stacked parameter, 0 if it is none."""
    return shape[layouts.LAYERS_AXIS] if len(shape) > layouts.LAYERS_AXIS else 0


def _check_shapes(
    source: ParamSource,
    wanted: _Shapes,
    origins: Mapping[str, list[str]],
    stored: _Shapes,
) -> None:
    """Raises CheckpointError unless every parameter is stored, in the right shape."""
    # Path -> (what is there, what is needed), in the layout of the source or of the model.
    differ: dict[str, tuple[str, str]] = {}
    # Settings that would mend a difference, None for one that no single setting does.
    settings: set[str | None] = set()
    for path, origin in origins.items():
        has, needs = [stored[name] for name in origin], wanted[path]
        if origin and origin != [path]:
            if layouts.is_stacked(path):
                needs = layouts.layer_shape(path, needs)
            else:
                has = [layouts.layer_shape(origin[0], has[0])]
        # All layers are alike; the first that is not is the one to show.
        odd = next((shape for shape in has if shape != needs), None)
        if not has or odd is not None:
            differ[path] = ("missing" if odd is None else str(list(odd)), str(list(needs)))
            settings.add(_setting(path, odd, needs))
    if not differ:
        return
    shown = list(differ)[:_MAX_SHOWN]
    is_missing = len(differ) == len(origins) and differ[shown[0]][0] == "missing"
    raise CheckpointError(
        f"The checkpoint {source.path} is of another size or model:"
        f" {len(differ)} of {len(origins)} parameters differ",
        got={path: differ[path][0] for path in shown},
        expected=", ".join(f"{path} {differ[path][1]}" for path in shown),
        fix="use the model gin file of this checkpoint's size and version, or another checkpoint"
        if None in settings
        else f"bind {' and '.join(sorted(filter(None, settings)))}",
        name=shown[0] if is_missing else None,
        candidates=stored,
    )


def _setting(path: str, has: tuple[int, ...] | None, needs: tuple[int, ...]) -> str | None:
    """The binding at which an array would fit, if a setting counts the one axis that differs."""
    axis, name = _COUNTED.get(path, (None, None))
    if axis is None or has is None or len(has) != len(needs):
        return None
    is_one_axis = all(n == m for i, (n, m) in enumerate(zip(has, needs, strict=True)) if i != axis)
    return f"{name} = {has[axis]}" if is_one_axis else None


def _check_dtypes(source: ParamSource, origins: Mapping[str, list[str]]) -> None:
    """Raises CheckpointError if a parameter is not stored in a dtype that checkpoints of a T5 have."""
    names = [name for origin in origins.values() for name in origin]
    dtypes = {name: str(source.shapes()[name][1]) for name in dict.fromkeys(names)}
    wrong = {name: dtype for name, dtype in dtypes.items() if dtype not in _STORED_DTYPES}
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} of {len(dtypes)} arrays in the checkpoint {source.path} cannot be"
            " parameters",
            got=dict(list(wrong.items())[:_MAX_SHOWN]),
            expected=f"one of {list(_STORED_DTYPES)}",
            fix="save the checkpoint again with parameters in one of these dtypes",
        )


def _check_leftovers(source: ParamSource, model_shapes: Mapping[str, Any]) -> None:
    """Raises CheckpointError if the source has parameters that the model has not."""
    stored = {path: tuple(shape) for path, (shape, _) in source.shapes().items()}
    model = {path: tuple(leaf.shape) for path, leaf in model_shapes.items()}
    extra = _unscanned_names(stored) - _unscanned_names(model)
    if extra:
        raise CheckpointError(
            f"The checkpoint {source.path} has {len(extra)} parameters that the model has not",
            got=sorted(extra)[:_MAX_SHOWN],
            expected="exactly the parameters of the model",
            fix="use the model gin file of this checkpoint's size and version",
        )


def _unscanned_names(shapes: _Shapes) -> set[str]:
    """The names of all parameters in the unscanned layout; a stack's relative position tables go by one name."""
    return {
        f"{name.split('/')[0]}/{TABLE}" if name.endswith(TABLE) else int8.kernel_of(name)
        for path, shape in shapes.items()
        for name in layouts.unscanned_paths(path, _num_layers(shape))
    }
