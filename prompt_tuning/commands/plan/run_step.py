"""The step of a gin run as abstract arrays: what is needed to compile it, and nothing that has to be loaded."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning import tree
from prompt_tuning.config import files, queries
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import ADDED_REGEX, PROMPT_REGEX
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import steps
from prompt_tuning.run.arrays import abstract_state, held_shapes
from prompt_tuning.run.checks import check_microbatches
from prompt_tuning.run.start import split_paths
from prompt_tuning.training.trainer import Trainer
from prompt_tuning.types import TASK, PyTree

MODES = ("train", "eval", "decode")
# Macros whose values a step does not depend on -> what stands for them. Their files need not exist.
STAND_INS = {
    "MODEL_DIR": "unused",
    "EVAL_OUTPUT_DIR": "unused",
    "INFER_OUTPUT_DIR": "unused",
    "CHECKPOINT_PATH": "unused",
    "MIXTURE_OR_TASK_NAME": "unused",
    "MIXTURE_OR_TASK_MODULE": None,
    "INFER_INPUT_FILE": None,
    "PROMPT_FILE": None,
    "EMBEDDING_FILE": None,
    "PROMPT_TEXT": "unused",
    "CLASS_LABELS": ["unused"],
}
MAY_BE_UNSET = ("INITIAL_CHECKPOINT_PATH",)
_ARGUMENTS = (
    "model partitioner trainer train_dataset_cfg train_eval_dataset_cfg infer_eval_dataset_cfg checkpoint_cfg"
    " total_steps relative_steps trainable_regex dataset_cfg restore_checkpoint_cfg"
).split()
_DEFAULT_MODES = {"train": "train", "eval": "decode", "infer": "decode"}


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """What of a gin run decides its step.

    Attributes:
      mode: One of `MODES`: an update, an evaluation by teacher forcing, or decoding.
      model: The model.
      partitioner: Mesh and axis rules, for the devices that are there.
      trainer: Optimizer and microbatches; None for a run that does not train.
      trainable_regex: Which parameters learn.
      frozen_dtype: Storage type of the frozen parameters (of all but the prompt, outside training runs).
      batch_size: Global. Unit: examples.
      lengths: TASK_FEATURE_LENGTHS.
      is_packed: Whether rows hold several examples.
      num_steps: Updates that the run makes; None where the config does not say.
    """

    mode: str
    model: EncoderDecoderModel
    partitioner: PjitPartitioner
    trainer: Trainer | None
    trainable_regex: tuple[str, ...]
    frozen_dtype: str
    batch_size: int
    lengths: Mapping[str, int]
    is_packed: bool
    num_steps: int | None


@dataclasses.dataclass(frozen=True)
class StepOnCores:
    """A step, ready to be compiled, and what its arguments take on each core.

    Attributes:
      lowered: `jax.stages.Lowered`.
      weight_bytes: All parameters, frozen and trainable.
      optimizer_bytes: The rest of the training state.
      batch_bytes: The batch.
    """

    lowered: Any
    weight_bytes: int
    optimizer_bytes: int
    batch_bytes: int


def read_run(
    gin_files: Sequence[str],
    bindings: Sequence[tuple[str, str]],
    search_paths: Sequence[str] = (),
    mode: str | None = None,
) -> PlannedRun:
    """Returns what of a gin run decides its step; reads no data, no vocabulary and no checkpoint.

    Args:
      gin_files: As of `prompt-tuning train`, `eval` or `infer`.
      bindings: (text, flag as typed), applied after the files.
      search_paths: Folders of gin files.
      mode: One of `MODES`; None for an update where the files train, else decoding.

    Raises:
      ConfigError: If the config is wrong, or says too little of the step.
    """
    parsed = files.read(gin_files, bindings, search_paths)
    command, found = queries.query_arguments(parsed, _ARGUMENTS, STAND_INS, MAY_BE_UNSET)
    mode = mode or _DEFAULT_MODES[command]
    trains = command == "train"
    if mode == "train" and not trains:
        raise ConfigError(
            "These gin files do not train",
            got=f"--mode=train for a config of `prompt-tuning {command}`",
            expected="--mode=eval or --mode=decode",
            fix="leave --mode out, or add --gin_file=prompt_tuning/configs/runs/prompt_finetune.gin instead",
        )
    cfg = found["train_dataset_cfg" if trains else "dataset_cfg"]
    lengths, batch_size = cfg.task_feature_lengths, cfg.batch_size
    of_mode = {"eval": "train_eval_dataset_cfg", "decode": "infer_eval_dataset_cfg"}
    if trains and mode in of_mode and found.get(of_mode[mode]):
        cfg = found[of_mode[mode]]
        # Decoding in training takes the lengths of the longest examples, at most these.
        lengths, batch_size = cfg.task_feature_lengths or lengths, cfg.batch_size
    if not lengths:
        raise ConfigError(
            "TASK_FEATURE_LENGTHS is not set",
            got=lengths,
            expected="the lengths that the step is compiled for",
            fix="add --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 512, 'targets': 8}\"",
        )
    restore = found["checkpoint_cfg"].restore if trains else found["restore_checkpoint_cfg"]
    return PlannedRun(
        mode=mode,
        model=found["model"],
        partitioner=found["partitioner"],
        trainer=found.get("trainer"),
        trainable_regex=tuple(
            found.get("trainable_regex", PROMPT_REGEX if not trains else (".*",))
        ),
        frozen_dtype=restore.dtype,
        batch_size=batch_size,
        lengths=dict(lengths),
        # With a prompt only training is packed.
        is_packed=cfg.pack and (mode == "train" or found["model"].prompt is None),
        num_steps=_num_steps(found.get("total_steps"), found.get("relative_steps"), restore.path),
    )


def _num_steps(total: int | None, relative: int | None, path: str | None) -> int | None:
    """Updates of the run; the step that a T5X checkpoint is named for is part of TRAIN_STEPS."""
    if relative is not None or total is None:
        return relative
    named = re.search(r"checkpoint_(\d+)/*$", path or "")
    restored = int(named.group(1)) if named else 0
    return total - restored if total > restored else total


def step_on(run: PlannedRun, devices: Sequence[Any]) -> StepOnCores:
    """Traces the step of a run for devices that need not exist here.

    Args:
      run: The run.
      devices: Its devices.

    Raises:
      ConfigError: If the batch or a parameter cannot be spread over them.
    """
    partitioner = _spread(run, devices)
    batch = abstract_batch(run, partitioner)
    if run.mode == "train":
        assert run.trainer is not None
        state, frozen, tx = abstract_training(run, partitioner)
        step = steps.train_step(run.model, partitioner, run.trainer, tx, state)
        arguments: tuple[Any, ...] = (state, frozen, batch)
        weights, rest = (state.trainable, frozen), (state.step, state.opt_state, state.rng)
    else:
        params = abstract_params(run, partitioner)
        arguments, weights, rest = (params, batch), params, ()
        make = steps.eval_step
        if run.mode == "decode":
            make, arguments = steps.predict_step, (params, batch, run.lengths["targets"])
        step = make(run.model, partitioner)
    with partitioner.activate():
        lowered = step.lower(*arguments)
    return StepOnCores(
        lowered, bytes_per_core(weights), bytes_per_core(rest), bytes_per_core(batch)
    )


def argument_bytes(run: PlannedRun, devices: Sequence[Any]) -> int:
    """Returns what weights and optimizer take on each core, which no compiler can lower; traces nothing.

    Args:
      run: The run.
      devices: Its devices.

    Raises:
      ConfigError: If the batch or a parameter cannot be spread over them.
    """
    partitioner = _spread(run, devices)
    if run.mode != "train":
        return bytes_per_core(abstract_params(run, partitioner))
    return bytes_per_core(abstract_training(run, partitioner)[:2])


def _spread(run: PlannedRun, devices: Sequence[Any]) -> PjitPartitioner:
    """The run's partitioner on devices, over which its batch and microbatches divide."""
    partitioner = run.partitioner.on(devices)
    partitioner.check_batch_size(run.batch_size)
    if run.mode == "train":
        assert run.trainer is not None
        check_microbatches(partitioner, run.trainer, run.batch_size)
    return partitioner


def abstract_training(run: PlannedRun, partitioner: PjitPartitioner) -> tuple[Any, PyTree, Any]:
    """Returns the training state and the frozen parameters as abstract arrays, and the optimizer."""
    assert run.trainer is not None
    model = run.model
    trainable, frozen = split_paths(model, run.trainable_regex)
    run.trainer.check_paths(trainable)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    tx = run.trainer.make_tx()
    shapes = {path: model.param_shapes[path] for path in trainable}
    state = abstract_state(tx, shapes, shardings, partitioner)
    held = held_shapes(model, partitioner, frozen, run.frozen_dtype)
    return state, tree.unflatten(held), tx


def abstract_params(run: PlannedRun, partitioner: PjitPartitioner) -> PyTree:
    """Returns all parameters as abstract arrays, as evaluation and inference hold them."""
    is_float = tree.match_any(run.trainable_regex if run.trainer else ADDED_REGEX)
    paths = list(run.model.param_shapes)
    frozen = [path for path in paths if not is_float(path)]
    held = held_shapes(run.model, partitioner, frozen, run.frozen_dtype)
    held |= held_shapes(run.model, partitioner, list(filter(is_float, paths)), "float32")
    return tree.unflatten(held)


def abstract_batch(run: PlannedRun, partitioner: PjitPartitioner) -> dict[str, Any]:
    """Returns a batch of the run's data as abstract arrays."""
    names = {"encoder_input_tokens": "inputs"} | {
        f"decoder_{name}": "targets" for name in ("input_tokens", "target_tokens", "loss_weights")
    }
    lengths = run.lengths
    if run.is_packed and run.model.prompt is not None:
        # As many rows as examples at most, which then have one each.
        names["encoder_prompt_positions"] = "inputs"
        lengths = {**lengths, "inputs": lengths["inputs"] + run.model.prompt.length}
    if run.is_packed:
        names |= {f"encoder_{name}": "inputs" for name in ("segment_ids", "positions")}
        names |= {f"decoder_{name}": "targets" for name in ("segment_ids", "positions")}
    if run.mode != "decode" and run.model.choice_losses is not None:
        names["decoder_segment_ids"] = "targets"
    shapes = {name: (run.batch_size, lengths[feature]) for name, feature in names.items()}
    if run.model.method is not None and run.model.method.task_names:
        shapes[TASK] = (run.batch_size,)
    return {
        name: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=partitioner.batch_sharding)
        for name, shape in shapes.items()
    }


def bytes_per_core(arrays: PyTree) -> int:
    """Returns what arrays take on one core, without the padding of its tiles.

    Args:
      arrays: Abstract or real arrays with shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )
