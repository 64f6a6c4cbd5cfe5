"""What a run's arrays look like before any exists: shape, dtype, sharding and order in memory; and random ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Format, Layout
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import int8, layouts
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.training.state import TrainState
from prompt_tuning.types import PyTree

# Elsewhere the default order has not been seen to cost memory, and on a CPU it is the one that needs no copy.
_LAYERS_FIRST_PLATFORMS = ("tpu",)


def held_shapes(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, paths: Sequence[str], dtype: str
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shape, dtype, sharding and order in memory of what holds some parameters; allocates nothing.

    On a TPU, stacked parameters lie in memory layer by layer. In the order that T5X's shapes [H, layers, F] suggest,
    the compiler keeps a second copy of them all, reordered, as soon as a loop (over microbatches, over decoded tokens)
    goes around the loop over layers.

    Args:
      model: The model.
      partitioner: Mesh and axis rules.
      paths: The parameters.
      dtype: `RestoreCheckpointConfig.dtype` for frozen ones, "float32" for trainable ones; int8 adds scales.
    """
    shapes = {path: model.param_shapes[path].shape for path in paths}
    axes = {path: model.param_axes[path] for path in paths}
    if dtype == int8.INT8:
        shapes, axes = int8.with_scales(shapes), int8.with_scales(axes)
    shardings = partitioner.param_shardings(axes, shapes)
    dtypes = {path: jnp.dtype(int8.held_dtype(path, dtype)) for path in shapes}
    return {
        path: jax.ShapeDtypeStruct(
            shape, dtypes[path], sharding=_format(path, len(shape), shardings[path])
        )
        for path, shape in shapes.items()
    }


def put_in_order(
    params: Mapping[str, jax.Array], shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """Returns the parameters in the order in memory that `held_shapes` gives them; frees those that had another."""

    def put(x: jax.Array, wanted: jax.ShapeDtypeStruct) -> jax.Array:
        if wanted.format.layout is None:
            return x
        return jax.block_until_ready(jax.device_put(x, wanted.format, donate=True))

    return {path: put(x, shapes[path]) for path, x in params.items()}


def _format(path: str, ndim: int, sharding: NamedSharding) -> Format | NamedSharding:
    """The sharding of a parameter, with its order in memory where it is not the default."""
    order = layouts.memory_order(path, ndim)
    platform = next(iter(sharding.device_set)).platform
    if order is None or platform not in _LAYERS_FIRST_PLATFORMS:
        return sharding
    return Format(Layout(order), sharding)


def shardings_of(state: PyTree) -> PyTree:
    """Returns the sharding of every leaf; the step is compiled to keep them."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)


def abstract_state(
    tx: optax.GradientTransformation,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
    shardings: Mapping[str, Any],
    partitioner: PjitPartitioner,
) -> TrainState:
    """Returns the shapes, dtypes and shardings of the state, allocating nothing.

    An optimizer slot that has its parameter's shape is sharded like the parameter; everything else is replicated.
    """
    replicated = partitioner.replicated
    trainable = {
        path: jax.ShapeDtypeStruct(s.shape, jnp.float32, sharding=shardings[path])
        for path, s in shapes.items()
    }
    opt_state = jax.eval_shape(tx.init, tree.unflatten(trainable))

    def with_sharding(key_path: Any, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sharding = _slot_sharding(key_path, leaf.shape, trainable) or replicated
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    opt_state = jax.tree_util.tree_map_with_path(with_sharding, opt_state)
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated),
        trainable=tree.unflatten(trainable),
        opt_state=opt_state,
        rng=jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated),
    )


def param_of_slot(key_path: Any, params: Mapping[str, Any]) -> str | None:
    """Returns which of `params` a leaf of the optimizer's state belongs to; None for counters."""
    keys = [str(k.key) for k in key_path if isinstance(k, jax.tree_util.DictKey)]
    paths = ("/".join(keys[i:]) for i in range(len(keys)))
    return next((path for path in paths if path in params), None)


def _slot_sharding(
    key_path: Any, shape: tuple[int, ...], params: Mapping[str, jax.ShapeDtypeStruct]
) -> NamedSharding | None:
    """The sharding of the parameter that an optimizer slot belongs to, if the slot has its shape."""
    path = param_of_slot(key_path, params)
    if path is None:
        return None
    param = params[path]
    if param.shape == shape:
        return param.sharding
    if not layouts.is_stacked(path):
        return None
    # Slots of stacked layers have the layers first, and heads joined with their width as in an unscanned kernel.
    ndim = len(param.shape)
    axes = list(zip(param.shape, [*param.sharding.spec, *[None] * ndim][:ndim], strict=True))
    axes.insert(0, axes.pop(layouts.LAYERS_AXIS))
    if ndim == 4:
        first = 1 if path.endswith("/out/kernel") else 2
        (size, mesh_axis), (width, _) = axes[first], axes.pop(first + 1)
        axes[first] = (size * width, mesh_axis)
    if tuple(size for size, _ in axes) != shape:
        return None
    return NamedSharding(param.sharding.mesh, PartitionSpec(*(mesh_axis for _, mesh_axis in axes)))


def random_params(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    shardings: Mapping[str, Any],
    rng: jax.Array,
) -> dict[str, jax.Array]:
    """Returns every parameter drawn from its initializer, made where it lives.

    Args:
      model: The model.
      partitioner: Mesh and axis rules.
      shardings: Path -> sharding.
      rng: Key of the weights.
    """

    def init(rng: jax.Array) -> PyTree:
        params = model.init(rng)
        if model.method is None:
            return params
        # What Flax draws for a scanned kernel depends on how many parameters stand beside it: without the method a seed
        # has its weights whatever is tuned.
        plain = dataclasses.replace(model, module=model.module.clone(method=None))
        return tree.unflatten({**tree.flatten(params), **tree.flatten(plain.init(rng))})

    with partitioner.activate():
        drawn = jax.jit(init, out_shardings=tree.unflatten(dict(shardings)))
        return tree.flatten(drawn(rng))
