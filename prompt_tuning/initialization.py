"""Where every parameter comes from.

1. `frozen` always comes from INITIAL_CHECKPOINT_PATH; its digest is recorded in every checkpoint and prompt file.
2. `trainable` comes from this run's latest checkpoint, if there is one;
3. else from the initial checkpoint, prompts too if it holds them (prompt transfer);
4. else from its initializer: prompts; other parameters only with INITIALIZE_FROM_SCRATCH = True.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning import layouts, prompt_formats, tree
from prompt_tuning.checkpoints import digest, huggingface_config, initial
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.t5x_optimizer_state import T5XOptimizerState
from prompt_tuning.encoder_decoder import EncoderDecoderModel
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.optimizer_start import restore_moments
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run_config import RestoreCheckpointConfig
from prompt_tuning.training.state import TrainState
from prompt_tuning.types import PyTree

PROMPT_REGEX = (".*/prompt/.*",)
EMBEDDING = "token_embedder/embedding"


@dataclasses.dataclass(frozen=True)
class Start:
    """The start of a run.

    Attributes:
      state: The state of the first step to run.
      frozen: Nested dict of the frozen parameters.
      metadata: What every checkpoint and prompt file records of where the weights came from.
      resumed: What the resumed checkpoint recorded; empty for a fresh start.
    """

    state: TrainState
    frozen: PyTree
    metadata: dict[str, Any]
    resumed: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Parameters to predict with, and the step they are from."""

    params: PyTree
    step: int


def split_paths(
    model: EncoderDecoderModel, trainable_regex: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the paths of the trainable and of the frozen parameters.

    Raises:
      ConfigError: If no parameter is trainable.
    """
    is_trainable = tree.match_any(trainable_regex)
    trainable = [path for path in model.param_shapes if is_trainable(path)]
    frozen = [path for path in model.param_shapes if not is_trainable(path)]
    if not trainable:
        raise ConfigError(
            "No parameter is trainable",
            got=list(trainable_regex),
            expected="a regular expression that matches the path of at least one parameter",
            fix="bind PROMPT_LENGTH to at least 1, or train.trainable_regex to ['.*'] for model tuning",
        )
    return trainable, frozen


def open_initial(
    restore: RestoreCheckpointConfig | None, *, from_scratch: bool
) -> initial.ParamSource | None:
    """Returns the initial checkpoint, or None where the config asks for random weights by name.

    Raises:
      ConfigError: If there is no checkpoint path and `from_scratch` is False.
    """
    if restore is not None and restore.path:
        return initial.open_source(restore.path, mode=restore.mode)
    if from_scratch:
        return None
    raise ConfigError(
        "No initial checkpoint",
        got=None,
        expected="INITIAL_CHECKPOINT_PATH, the pre-trained weights that stay frozen",
        fix="bind INITIAL_CHECKPOINT_PATH, or INITIALIZE_FROM_SCRATCH = True to train random weights on purpose",
    )


def initialize(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    tx: optax.GradientTransformation,
    *,
    source: initial.ParamSource | None,
    frozen_dtype: str,
    trainable_regex: Sequence[str],
    checkpointer: Checkpointer,
    rng: jax.Array,
    optimizer_state: T5XOptimizerState | None = None,
) -> Start:
    """Returns the state, the frozen parameters and where they came from, as this module's docstring says.

    Args:
      model: The model.
      partitioner: Mesh and axis rules; every array lands sharded.
      tx: Optimizer of the trainable parameters.
      source: The opened initial checkpoint; None draws every parameter from `rng`.
      frozen_dtype: "float32" or "bfloat16", of the frozen parameters; trainable ones are float32.
      trainable_regex: Selects the trainable parameters by path.
      checkpointer: Of this run; its latest checkpoint wins over the initial one.
      rng: Key of this run: parameters, prompt and dropout each get their own.
      optimizer_state: Second moments of the initial checkpoint, for a run that starts; None starts them at zero.

    Raises:
      CheckpointError: If a checkpoint does not fit the model, or the frozen weights are not those that the resumed
        checkpoint was trained on.
    """
    trainable_paths, frozen_paths = split_paths(model, trainable_regex)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    init_rng, prompt_rng, dropout_rng = jax.random.split(rng, 3)
    if source is None:
        flat = _random_params(model, partitioner, shardings, init_rng)
        frozen = {path: _cast(flat[path], frozen_dtype) for path in frozen_paths}
    else:
        flat = {}
        frozen = _load(source, model, shardings, frozen_paths, frozen_dtype)
    is_prompt = tree.match_any(PROMPT_REGEX)
    metadata = {
        "trainable_regex": list(trainable_regex),
        "frozen_digest": digest.params_digest(frozen) if frozen else None,
        "initial_checkpoint_path": None if source is None else str(source.path),
        "initial_checkpoint_step": None if source is None else source.step,
    }

    shapes = {path: model.param_shapes[path] for path in trainable_paths}
    abstract = abstract_state(tx, shapes, shardings, partitioner)
    latest = checkpointer.latest_step()
    if latest is not None:
        state, resumed = checkpointer.restore(latest, abstract)
        check_digest(
            resumed.get("frozen_digest"), metadata["frozen_digest"], f"checkpoint {latest}"
        )
        logging.info("Resuming at step %d", latest)
        return Start(state, tree.unflatten(frozen), metadata, resumed)
    if source is None:
        trainable = {path: flat[path] for path in trainable_paths if not is_prompt(path)}
    else:
        stored = set(source.shapes())
        there = [path for path in trainable_paths if path in stored or not is_prompt(path)]
        trainable = _load(source, model, shardings, there, "float32")
    for path in filter(is_prompt, trainable_paths):
        if path in trainable:
            logging.info("%s starts as it is in %s, not from its initializer", path, source)
            continue
        embedding = {**frozen, **trainable}[EMBEDDING]
        trainable[path] = make_prompt(model, partitioner, embedding, shardings[path], prompt_rng)

    def new_state(trainable: PyTree) -> TrainState:
        key = jax.random.key_data(dropout_rng)
        return TrainState(jnp.zeros((), jnp.int32), trainable, tx.init(trainable), key)

    state = jax.jit(new_state, out_shardings=shardings_of(abstract))(tree.unflatten(trainable))
    if optimizer_state is not None:
        state = state.replace(opt_state=restore_moments(state.opt_state, optimizer_state, shapes))
    return Start(state, tree.unflatten(frozen), metadata, {})


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


def _slot_sharding(
    key_path: Any, shape: tuple[int, ...], params: Mapping[str, jax.ShapeDtypeStruct]
) -> NamedSharding | None:
    """The sharding of the parameter that an optimizer slot belongs to, if the slot has its shape."""
    keys = [str(k.key) for k in key_path if isinstance(k, jax.tree_util.DictKey)]
    paths = ["/".join(keys[i:]) for i in range(len(keys))]
    path = next((path for path in paths if path in params), None)
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


def make_prompt(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    embedding: jax.Array,
    sharding: Any,
    rng: jax.Array,
) -> jax.Array:
    """Returns the prompt [P, H] float32 that the model's initializer makes from the frozen embedding table."""
    prompt = model.prompt
    assert prompt is not None, "a prompt path exists only in a model with a prompt"
    with partitioner.activate():
        array = initializers.build_prompt(
            prompt.prompt_init,
            length=prompt.length,
            embedding_table=embedding,
            encode_text=model.input_vocabulary.encode,
            rng=rng,
        )
    return jax.device_put(array, sharding)


def load_for_inference(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    *,
    initial_checkpoint: str | None = None,
) -> Loaded:
    """Returns all parameters of a checkpoint, and a prompt where the model has one.

    The prompt comes from a file if the config names one (PROMPT_FILE), else from the checkpoint if it holds one, else
    from the model's initializer: evaluating an untuned prompt is how "before" is measured.

    Args:
      model: The model.
      partitioner: Mesh and axis rules; every array lands sharded.
      restore: The checkpoint.
      initial_checkpoint: Where the frozen weights of a run's checkpoint are now, if not where it was trained.

    Raises:
      CheckpointError: If the checkpoint does not fit the model, or the prompt was trained on other frozen weights.
    """
    source = initial.open_source(
        restore.path or "", mode=restore.mode, initial_checkpoint=initial_checkpoint
    )
    recorded, what = getattr(source, "metadata", {}), f"checkpoint {source.path}"
    prompt_path = prompt_file_of(model.prompt)
    if prompt_path is not None:
        # Read before the weights, so that a prompt of another model is refused at once.
        _, info = prompt_formats.load_prompt(prompt_path, width=model.config.emb_dim)
        recorded, what = info or {}, f"prompt file {prompt_path}"
    is_prompt = tree.match_any(PROMPT_REGEX)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    frozen = [path for path in model.param_shapes if not is_prompt(path)]
    params = _load(source, model, shardings, frozen, restore.dtype)
    prompts = [path for path in model.param_shapes if is_prompt(path)]
    stored = set(source.shapes())
    for path in prompts:
        if path in stored and prompt_path is None:
            params[path] = _load(source, model, shardings, [path], "float32")[path]
        else:
            rng = jax.random.key(0)
            params[path] = make_prompt(model, partitioner, params[EMBEDDING], shardings[path], rng)
    if recorded.get("frozen_digest"):
        was_trained = tree.match_any(recorded.get("trainable_regex", PROMPT_REGEX))
        actual = digest.params_digest({p: x for p, x in params.items() if not was_trained(p)})
        check_digest(recorded["frozen_digest"], actual, what)
    return Loaded(tree.unflatten(params), source.step or 0)


def prompt_file_of(prompt: PromptConfig | None) -> str | None:
    """Returns PROMPT_FILE if the prompt comes from a file that the config names."""
    spec = prompt.prompt_init if prompt else None
    return spec.path if isinstance(spec, initializers.FromFile) else None


def check_digest(recorded: str | None, actual: str | None, what: str) -> None:
    """Raises CheckpointError unless the frozen weights are those that `what` was trained on."""
    if recorded != actual:
        raise CheckpointError(
            f"The frozen weights are not those that {what} was trained on",
            got=f"weights with digest {actual}",
            expected=f"weights with digest {recorded}",
            fix="point INITIAL_CHECKPOINT_PATH or CHECKPOINT_PATH at the checkpoint the prompt was trained on",
        )


def _load(
    source: initial.ParamSource,
    model: EncoderDecoderModel,
    shardings: Mapping[str, Any],
    paths: Sequence[str],
    dtype: str,
) -> dict[str, jax.Array]:
    """The named parameters from the source, sharded."""
    if not paths:
        return {}
    if source.settings is not None:
        huggingface_config.check_settings(source.settings, model.config, path=source.path)
    shapes = {path: model.param_shapes[path] for path in paths}
    return initial.load_params(
        source,
        shapes,
        {path: shardings[path] for path in paths},
        dtype=dtype,
        model_shapes=model.param_shapes,
    )


def _random_params(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, shardings: Mapping, rng: jax.Array
) -> dict[str, jax.Array]:
    """Every parameter drawn from its initializer, made where it lives."""
    with partitioner.activate():
        init = jax.jit(model.init, out_shardings=tree.unflatten(dict(shardings)))
        return tree.flatten(init(rng))


def _cast(x: jax.Array, dtype: str) -> jax.Array:
    """A float array in another float dtype."""
    return x.astype(jnp.dtype(dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
