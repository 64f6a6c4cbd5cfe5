"""Where the parameters that a method adds come from if no checkpoint holds them: a file, or their initializers."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints import hub, paths
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import layouts
from prompt_tuning.params.names import is_method
from prompt_tuning.partitioning import PjitPartitioner

_MAX_SHOWN = 3


def make_method(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    wanted: Sequence[str],
    shardings: Mapping[str, Any],
    rng: jax.Array,
) -> dict[str, jax.Array]:
    """Returns some of the parameters that the model's method adds, from METHOD_FILE or else as they are initialized.

    Args:
      model: The model.
      partitioner: Mesh and axis rules.
      wanted: Their paths.
      shardings: Path -> sharding.
      rng: Key of random weights.

    Raises:
      CheckpointError: If the file cannot be read, or is of another model or of other settings of the method.
    """
    if not wanted:
        return {}
    method = model.method
    assert method is not None, "a method's path exists only in a model with a method"
    if method.path is not None:
        arrays = arrays_of(model, read_set(method.path), "METHOD_FILE")
        return {path: jax.device_put(arrays[path], shardings[path]) for path in wanted}

    def init(rng: jax.Array) -> dict[str, jax.Array]:
        # What is not returned is not computed.
        flat = tree.flatten(model.init(rng))
        return {path: flat[path] for path in wanted}

    with partitioner.activate():
        return jax.jit(init, out_shardings={path: shardings[path] for path in wanted})(rng)


def read_fitting(model: EncoderDecoderModel) -> MethodSet | None:
    """Returns what METHOD_FILE, which the model's method names, holds; None if it names none.

    Raises:
      CheckpointError: If it cannot be read, or is of another model or of other settings of the method.
    """
    if model.method is None or model.method.path is None:
        return None
    found = read_set(model.method.path)
    arrays_of(model, found, "METHOD_FILE")
    return found


def method_origin(model: EncoderDecoderModel) -> dict[str, Any] | None:
    """Returns what a run records of the METHOD_FILE that it starts from; None if it starts from none."""
    path = model.method and model.method.path
    if path is None:
        return None
    found = read_set(path)
    kept = {name: found.info.get(name) for name in ("task", "step", "frozen_digest")}
    return {"path": hub.pinned(paths.absolute(path)), "sha256": digest_of(found), **kept}


def digest_of(found: MethodSet) -> str:
    """Returns the SHA-256 of parameters, by name and value."""
    return content.of_bytes(
        b"".join(p.encode() + x.tobytes() for p, x in sorted(found.params.items()))
    )


def arrays_of(model: EncoderDecoderModel, found: MethodSet, setting: str) -> dict[str, np.ndarray]:
    """Returns what a method added to a model, by the paths of the model's layout.

    Args:
      model: The model.
      found: What was read, layer by layer.
      setting: The setting that names it, for messages.

    Raises:
      CheckpointError: If it is of another model, or of other settings of the method.
    """
    shapes = {path: x.shape for path, x in model.param_shapes.items() if is_method(path)}
    where = found.info.get("exported_from")
    _check_settings(model, found, [*shapes, *found.params])
    layers = {
        path: layouts.unscanned_paths(path, shape[layouts.LAYERS_AXIS])
        if layouts.is_stacked(path)
        else [path]
        for path, shape in shapes.items()
    }
    needed = {
        name: layouts.layer_shape(path, shapes[path]) if layouts.is_stacked(path) else shapes[path]
        for path, names in layers.items()
        for name in names
    }
    has = {name: x.shape for name, x in found.params.items()}
    if found.absent is not None:
        has = {**needed, **has}
    if found.spare:
        has = {name: shape for name, shape in has.items() if name in needed}
    differ = sorted(name for name in {*needed, *has} if needed.get(name) != has.get(name))
    if differ:
        shown = differ[:_MAX_SHOWN]
        raise CheckpointError(
            f"What {where} holds is of another model: {len(differ)} of {len(needed)} parameters differ",
            got={name: has.get(name) for name in shown},
            expected=str({name: needed.get(name) for name in shown}),
            fix=f"name a file of this model's size as {setting}",
        )
    params = {
        n: found.params.get(n, np.full(s, found.absent, np.float32)) for n, s in needed.items()
    }
    return {
        path: np.stack([params[name] for name in names], axis=layouts.LAYERS_AXIS)
        if layouts.is_stacked(path)
        else params[path]
        for path, names in layers.items()
    }


def _check_settings(model: EncoderDecoderModel, found: MethodSet, paths: Sequence[str]) -> None:
    """Raises CheckpointError unless what was read is of the model's method with its settings."""
    recorded = found.info.get(METHOD)
    if model.method is None:
        differ, fix = recorded or {}, "add a file of methods/ to the gin files"
    else:
        differ = model.method.differences(recorded, paths) if recorded else {}
        fix = f"bind {' and '.join(f'{name} = {x}' for name, x in differ.items())}"
        if "name" in differ:
            fix = f"bind METHOD = @methods.{differ['name']}(), or name another file"
    if model.method is None or differ:
        raise CheckpointError(
            f"What {found.info.get('exported_from')} holds is not what the model's method adds",
            got=recorded,
            expected=str(model.method and model.method.describe()),
            fix=fix,
        )
