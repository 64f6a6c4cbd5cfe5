"""Where every parameter comes from.

1. `frozen` always comes from INITIAL_CHECKPOINT_PATH; its digest is recorded in every checkpoint and prompt file.
2. `trainable` comes from this run's latest checkpoint, if there is one;
3. else from the initial checkpoint; what the prompt or the method adds too, if it is there (prompt transfer);
4. else, what they add, from the file that the config names, or from its initializer; other parameters only with
   INITIALIZE_FROM_SCRATCH = True.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import logging

from prompt_tuning import tree
from prompt_tuning.checkpoints import digest, load
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.formats import huggingface_config
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import int8
from prompt_tuning.params.names import EMBEDDING, is_added, is_method, is_prompt
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run import many_prompts, prompt_start
from prompt_tuning.run.arrays import abstract_state, held_shapes, put_in_order, shardings_of
from prompt_tuning.run.method_start import make_method, method_origin, read_fitting
from prompt_tuning.run.optimizer_start import OptimizerState, restore_moments
from prompt_tuning.run.trained_on import check_digest, check_recorded
from prompt_tuning.training.state import TrainState
from prompt_tuning.types import PyTree


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
    """Parameters to predict with, the step they are from, and the paths of those that nothing has tuned."""

    params: PyTree
    step: int
    untuned: frozenset[str] = frozenset()


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
) -> ParamSource | None:
    """Returns the initial checkpoint, or None where the config asks for random weights by name.

    Raises:
      ConfigError: If there is no checkpoint path and `from_scratch` is False.
    """
    if restore is not None and restore.path:
        return open_source(restore.path, mode=restore.mode)
    if from_scratch:
        return None
    raise ConfigError(
        "No initial checkpoint",
        got=None,
        expected="INITIAL_CHECKPOINT_PATH, the pre-trained weights that stay frozen",
        fix="bind INITIAL_CHECKPOINT_PATH, or INITIALIZE_FROM_SCRATCH = True to train random weights on purpose",
    )


def split_key(rng: jax.Array) -> jax.Array:
    """Returns the three keys that a run's own is split into: for random weights, for its prompt, for dropout."""
    # Three whatever is drawn, so that `prompt-tuning inspect` can make the prompt of a seed again.
    return jax.random.split(rng, 3)


def initialize(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    tx: optax.GradientTransformation,
    *,
    source: ParamSource | None,
    frozen_dtype: str,
    trainable_regex: Sequence[str],
    checkpointer: Checkpointer,
    rng: jax.Array,
    optimizer_state: OptimizerState | None = None,
) -> Start:
    """Returns the state, the frozen parameters and where they came from, as this module's docstring says.

    Args:
      model: The model.
      partitioner: Mesh and axis rules; every array lands sharded.
      tx: Optimizer of the trainable parameters.
      source: The opened initial checkpoint; None draws every parameter from `rng`.
      frozen_dtype: "float32", "bfloat16" or "int8", of the frozen parameters; trainable ones are float32.
      trainable_regex: Selects the trainable parameters by path.
      checkpointer: Of this run; its latest checkpoint wins over the initial one.
      rng: Key of this run: parameters, prompt and dropout each get their own.
      optimizer_state: Second moments of the initial checkpoint, for a run that starts; None starts them at zero.

    Raises:
      CheckpointError: If a checkpoint does not fit the model, or the frozen weights are not those that the resumed
        checkpoint was trained on.
    """
    trainable_paths, frozen_paths = split_paths(model, trainable_regex)
    if (latest := checkpointer.latest_step()) is None:
        # What does not fit is refused before the weights are read.
        read_fitting(model)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    init_rng, prompt_rng, dropout_rng = split_key(rng)
    held = held_shapes(model, partitioner, frozen_paths, frozen_dtype)
    if source is None:
        flat = _random_params(model, partitioner, shardings, init_rng)
        # Popped, so that nothing else keeps the floats alive while they become int8.
        floats = {path: flat.pop(path) for path in frozen_paths}
        held_shardings = {path: leaf.sharding for path, leaf in held.items()}
        frozen = put_in_order(int8.hold(floats, frozen_dtype, held_shardings), held)
    else:
        flat = {}
        frozen = _load(source, model, held)
    metadata = _origin(source, trainable_regex, frozen, frozen_dtype)

    shapes = {path: model.param_shapes[path] for path in trainable_paths}
    abstract = abstract_state(tx, shapes, shardings, partitioner)
    if latest is not None:
        state, resumed = checkpointer.restore(latest, abstract)
        check_digest(resumed, metadata["frozen_digest"], frozen_dtype, f"checkpoint {latest}")
        logging.info("Resuming at step %d", latest)
        # What the run started from was settled at its first start, and is only handed on.
        for name in ("initial_trainable_digest", "initial_prompt", "initial_method"):
            metadata[name] = resumed.get(name)
        return Start(state, tree.unflatten(frozen), metadata, resumed)
    if source is None:
        trainable = {path: flat.pop(path) for path in trainable_paths if not is_added(path)}
    else:
        there = [path for path in trainable_paths if _is_there(path, source, model)]
        wanted = tree.flatten(abstract.trainable)
        trainable = _load(source, model, {path: wanted[path] for path in there})
        if trainable:
            metadata["initial_trainable_digest"] = digest.params_digest(trainable)
    added = [path for path in trainable_paths if is_added(path)]
    if kept := [path for path in added if path in trainable]:
        logging.info("%s start as they are in %s, not from their initializers", kept, source)
    missing = [path for path in added if path not in trainable]
    embedding, rngs = {**frozen, **trainable}.get(EMBEDDING), (prompt_rng, init_rng)
    trainable |= _make_added(model, partitioner, missing, embedding, shardings, rngs)
    metadata |= _origin_of_added(model, missing)

    state = _new_state(tx, trainable, dropout_rng, shardings_of(abstract))
    if optimizer_state is not None:
        state = state.replace(opt_state=restore_moments(state.opt_state, optimizer_state, shapes))
    return Start(state, tree.unflatten(frozen), metadata, {})


def _make_added(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    missing: Sequence[str],
    embedding: Any,
    shardings: Mapping[str, Any],
    rngs: tuple[jax.Array, jax.Array],
) -> dict[str, jax.Array]:
    """What a prompt and a method add and no checkpoint has; `rngs` are the keys of the prompt and of the method."""
    made = {
        path: prompt_start.make_prompt(model, partitioner, embedding, shardings[path], rngs[0])
        for path in filter(is_prompt, missing)
    }
    wanted = [path for path in missing if is_method(path)]
    return made | make_method(model, partitioner, wanted, shardings, rngs[1])


def _origin_of_added(model: EncoderDecoderModel, missing: Sequence[str]) -> dict[str, Any]:
    """What a run records of the files that the config names for what no checkpoint has."""
    has_prompt, has_method = (any(map(of, missing)) for of in (is_prompt, is_method))
    return {
        "initial_prompt": prompt_start.prompt_origin(model.prompt) if has_prompt else None,
        "initial_method": method_origin(model) if has_method else None,
    }


def _new_state(
    tx: optax.GradientTransformation,
    trainable: dict[str, jax.Array],
    rng: jax.Array,
    shardings: TrainState,
) -> TrainState:
    """The state before the first step; empties `trainable`, so that one parameter at a time is there twice."""
    for path in list(trainable):
        # The step takes the state's memory for its results; on a CPU it may still be NumPy's.
        trainable[path] = jax.block_until_ready(jnp.copy(trainable.pop(path)))
    params = tree.unflatten(trainable)
    opt_state = jax.jit(tx.init, out_shardings=shardings.opt_state)(params)
    step, key = jnp.zeros((), jnp.int32), jax.random.key_data(rng)
    return TrainState(
        jax.device_put(step, shardings.step), params, opt_state, jax.device_put(key, shardings.rng)
    )


def load_for_inference(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    *,
    prompt_files: Sequence[str] = (),
    initial_checkpoint: str | None = None,
) -> Loaded:
    """Returns all parameters of a checkpoint, and what the model's prompt and its method add.

    That comes from a file if the config names one (PROMPT_FILE, METHOD_FILE), else from the checkpoint if it holds it,
    else from the initializer: evaluating an untuned prompt is how "before" is measured.

    Args:
      model: The model.
      partitioner: Mesh and axis rules; every array lands sharded.
      restore: The checkpoint.
      prompt_files: What was tuned, in any form that `many_prompts.read` takes. With these the parameters hold a table
        of them, whole on every device, row k for file k, in place of the model's own.
      initial_checkpoint: Where the frozen weights of a run's checkpoint are now, if not where it was trained.

    Raises:
      CheckpointError: If the checkpoint does not fit the model, a prompt cannot be read, or was trained on other frozen
        weights.
    """
    source = open_source(
        restore.path or "", mode=restore.mode, initial_checkpoint=initial_checkpoint
    )
    records = [(f"checkpoint {source.path}", getattr(source, "metadata", {}))]
    # They are read before the weights, so that what is of another model is refused at once.
    sets = [many_prompts.read(path, model) for path in prompt_files]
    records += [(f"prompt file {path}", s.info) for path, s in zip(prompt_files, sets, strict=True)]
    named = {} if sets else _read_named(model)
    # What the checkpoint was trained on does not matter to what comes from elsewhere.
    comes_along = any(is_added(path) and not _is_named(path, named) for path in model.param_shapes)
    records = [*(records if comes_along or not named else []), *named.values()]
    prompt_start.check_whole(model, records)

    frozen = [path for path in model.param_shapes if not is_added(path)]
    params = _load(source, model, held_shapes(model, partitioner, frozen, restore.dtype))
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    added = [] if sets else [path for path in model.param_shapes if is_added(path)]
    stored = [p for p in added if not _is_named(p, named) and _is_there(p, source, model)]
    params |= _load(source, model, held_shapes(model, partitioner, stored, "float32"))
    missing, rng = [path for path in added if path not in params], jax.random.key(0)
    embedding = params[EMBEDDING]
    params |= _make_added(model, partitioner, missing, embedding, shardings, (rng, rng))
    check_recorded(records, params, restore.dtype)
    nested = tree.unflatten(params)
    if sets:
        nested[table.TABLE] = jax.device_put(many_prompts.make_table(sets), partitioner.replicated)
    untuned = frozenset(path for path in missing if not _is_named(path, named))
    return Loaded(nested, source.step or 0, untuned)


def _read_named(model: EncoderDecoderModel) -> dict[str, tuple[str, dict[str, Any]]]:
    """Of PROMPT_FILE and METHOD_FILE, those that the config names: what errors call it, and what is recorded of it."""
    named: dict[str, tuple[str, dict[str, Any]]] = {}
    if (path := prompt_start.prompt_file_of(model.prompt)) is not None:
        named["PROMPT_FILE"] = (f"prompt file {path}", prompt_start.read_prompt_info(model, path))
    if (found := read_fitting(model)) is not None:
        named["METHOD_FILE"] = (f"method file {found.info['exported_from']}", dict(found.info))
    return named


def _is_named(path: str, named: Mapping[str, Any]) -> bool:
    """Whether a parameter that was added comes from a file that the config names."""
    return ("PROMPT_FILE" if is_prompt(path) else "METHOD_FILE") in named


def _origin(
    source: ParamSource | None,
    trainable_regex: Sequence[str],
    frozen: Mapping[str, jax.Array],
    frozen_dtype: str,
) -> dict[str, Any]:
    """What a run records of where its weights came from; the digest of trainable ones follows when they are read."""
    return {
        "trainable_regex": list(trainable_regex),
        "frozen_digest": digest.params_digest(frozen) if frozen else None,
        "frozen_dtype": frozen_dtype,
        "initial_checkpoint_path": None if source is None else str(source.path),
        "initial_checkpoint_step": None if source is None else source.step,
        "initial_trainable_digest": None,
        "initial_prompt": None,
        "initial_method": None,
    }


def _is_there(path: str, source: ParamSource, model: EncoderDecoderModel) -> bool:
    """Whether a parameter comes from the checkpoint: all do that make up the model, and others if they are in it."""
    return not is_added(path) or load.holds(source, path, model.param_shapes[path].shape)


def _load(
    source: ParamSource,
    model: EncoderDecoderModel,
    shapes: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
    """The parameters that `held_shapes` describes, from the source."""
    if not shapes:
        return {}
    if source.settings is not None:
        huggingface_config.check_settings(source.settings, model.config, path=source.path)
    params = load.load_params(
        source,
        shapes,
        {path: leaf.sharding for path, leaf in shapes.items()},
        dtype=lambda path: shapes[path].dtype.name,
        model_shapes=model.param_shapes,
    )
    return put_in_order(params, shapes)


def _random_params(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, shardings: Mapping, rng: jax.Array
) -> dict[str, jax.Array]:
    """Every parameter drawn from its initializer, made where it lives."""
    with partitioner.activate():
        init = jax.jit(model.init, out_shardings=tree.unflatten(dict(shardings)))
        return tree.flatten(init(rng))
