"""What makes a run the run it is: its number of updates, its seed, and what it and its results record of it."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from prompt_tuning.checkpoints import hub
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files import read
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.data import batches, content
from prompt_tuning.data.made_from import describe_dataset, describe_vocabulary
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.run import many_prompts
from prompt_tuning.run.method_start import digest_of
from prompt_tuning.run.prompt_start import prompt_file_of
from prompt_tuning.training.trainer import Trainer

# In what a checkpoint records says what its run was made from.
MADE_FROM = "made_from"
# The parts of it that a run is evaluated on.
EVALUATIONS = ("teacher-forcing evaluation", "decoding evaluation")
# What of a model changes how it is computed, and not what.
_NOT_COMPARED = ("scan_layers", "remat_policy", "attention")


def steps_of_this_run(total: int | None, relative: int | None, source: ParamSource | None) -> int:
    """Returns the updates to make: TRAIN_STEPS counts a T5X checkpoint's own steps, as in T5X.

    Raises:
      ConfigError: If neither is given, or nothing is left to train.
    """
    if relative is not None:
        return relative
    if total is None:
        raise ConfigError(
            "The number of steps is not set",
            got=None,
            expected="TRAIN_STEPS or TRAIN_STEPS_RELATIVE",
            fix="bind TRAIN_STEPS_RELATIVE to the updates you want",
        )
    # What was converted counts as what it was converted from.
    kind = getattr(source, "source_kind", source.kind) if source else None
    if source is None or kind != "t5x" or not source.step:
        return total
    if total <= source.step:
        raise ConfigError(
            "TRAIN_STEPS leaves nothing to train",
            got=total,
            expected=f"more than {source.step}, the step of the T5X checkpoint, which TRAIN_STEPS includes",
            fix="bind TRAIN_STEPS_RELATIVE to the updates you want",
        )
    left = total - source.step
    logging.info("TRAIN_STEPS %d - checkpoint step %d = %d updates", total, source.step, left)
    if jax.process_index() == 0:
        print(f"TRAIN_STEPS {total} - checkpoint step {source.step} = {left} updates")
    return left


def agree_on_seed(random_seed: int | None, checkpointer: Checkpointer) -> int:
    """Returns the config's seed, else the one the run was started with, else one drawn here for all processes."""
    latest = checkpointer.latest_step()
    if random_seed is not None:
        return random_seed
    if latest is not None:
        return int(checkpointer.metadata(latest)["seed"])
    # Each process would draw another; the first one's is taken.
    drawn = np.random.SeedSequence().generate_state(1)[0] % 2**31
    return int(multihost_utils.broadcast_one_to_all(np.uint32(drawn)))


def describe(
    model: EncoderDecoderModel,
    cfg: batches.DatasetConfig,
    model_dir: str,
    seed: int,
    config_text: str,
) -> dict[str, Any]:
    """Returns what every checkpoint and prompt file records of the run."""
    is_local = "://" not in model_dir
    return {
        "seed": seed,
        "task": cfg.mixture_or_task_name,
        "batch_size": cfg.batch_size,
        "length_window": cfg.length_window,
        "model": dataclasses.asdict(model.config),
        "prompt_length": model.prompt.length if model.prompt else 0,
        **({METHOD: model.method.describe()} if model.method else {}),
        "model_dir": os.path.abspath(model_dir) if is_local else model_dir,
        "config_digest": content.of_bytes(config_text),
    }


def describe_training(
    model: EncoderDecoderModel,
    data: Mapping[str, batches.DatasetConfig | None],
    trainer: Trainer,
    trainable_regex: Sequence[str],
) -> dict[str, Any]:
    """Returns what a run is made from, by content: data, vocabularies, model and recipe; JSON values.

    Not its batches, steps, saves and devices, nor how attention is computed, which may differ when it goes on.

    Args:
      model: The model.
      data: Name -> training data and those of the evaluations, which choose the best checkpoint; None for none.
      trainer: Optimizer and learning rates.
      trainable_regex: Regular expressions over whole parameter paths.
    """
    sizes = dataclasses.asdict(model.config)
    known: dict[tuple[str, ...], str | None] = {}
    return {
        **{
            name: cfg
            and {
                "TASK_FEATURE_LENGTHS": content.describe(cfg.task_feature_lengths),
                **describe_dataset(cfg, known),
            }
            for name, cfg in data.items()
        },
        "input vocabulary": describe_vocabulary(model.input_vocabulary),
        "output vocabulary": describe_vocabulary(model.output_vocabulary),
        f"network.{type(model.config).__name__}": content.describe(
            {name: value for name, value in sizes.items() if name not in _NOT_COMPARED}
        ),
        "loss": content.describe(model.loss_config),
        "optimizer": content.describe(trainer.optimizer),
        "learning rate": content.describe(trainer.learning_rate_fn),
        "TRAINABLE_REGEX": list(trainable_regex),
        # Left out where there are none, as earlier versions left them out.
        **(
            {"learning rates by regex": content.describe(trainer.learning_rates_by_regex)}
            if trainer.learning_rates_by_regex
            else {}
        ),
        **({"METHOD": model.method.describe()} if model.method else {}),
    }


def check_same_run(checkpointer: Checkpointer, metadata: Mapping[str, Any]) -> None:
    """Raises ConfigError if MODEL_DIR holds a run on another task, batch size, window or seed, or made from else.

    A checkpoint of a version that recorded less is compared by what it has.
    """
    latest = checkpointer.latest_step()
    if latest is None:
        return
    resumed = checkpointer.metadata(latest)
    for name, macro in (
        ("task", "MIXTURE_OR_TASK_NAME"),
        ("batch_size", "BATCH_SIZE"),
        ("length_window", "utils.DatasetConfig.length_window"),
        ("seed", "RANDOM_SEED"),
        ("restored_step", "adafactor.Adafactor.restored_step"),
    ):
        if name in resumed and resumed[name] != metadata[name]:
            raise ConfigError(
                f"{macro} differs from that of the run in MODEL_DIR, which would be resumed",
                got=metadata[name],
                expected=f"{resumed[name]!r}, so that the run goes on where it stopped",
                fix=f"bind the old {macro} or start in an empty MODEL_DIR",
            )
    if MADE_FROM not in resumed:
        return
    recorded, present = dict(resumed[MADE_FROM]), dict(metadata[MADE_FROM])
    # Another task to be evaluated on is a wish; the same one with other content would be compared with its old scores.
    for name in EVALUATIONS:
        if _task_of(recorded.get(name)) != _task_of(present.get(name)):
            present[name] = recorded.get(name)
    found = content.difference(recorded, present)
    if found:
        name, then, now = found
        raise ConfigError(
            f"The run in MODEL_DIR, which would be resumed, was made from something else: {name}",
            got=now,
            expected=f"{then!r}, so that the run goes on as what it is",
            fix="put back what it was, or start in an empty MODEL_DIR",
        )


def _task_of(described: Mapping[str, Any] | None) -> str | None:
    return described["task"] if described else None


def say_what_is_left(latest: int | None, num_steps: int) -> None:
    """Says in process 0 that a run has made more updates than are asked for, and makes no other."""
    if latest is not None and latest > num_steps and jax.process_index() == 0:
        print(
            f"MODEL_DIR holds step {latest} already, more than the {num_steps} updates asked for: nothing is trained"
        )


def describe_inference(
    source: ParamSource,
    dtype: str,
    model: EncoderDecoderModel,
    cfg: batches.DatasetConfig,
    input_file: str | None,
    prompts: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Returns all that predictions and scores follow from, by the names users know; JSON values.

    Args:
      source: The weights; the config of the run that left them tells two runs in one MODEL_DIR apart.
      dtype: In what the weights are held.
      model: The model.
      cfg: Task, split, lengths and batch size.
      input_file: INFER_INPUT_FILE.
      prompts: Name -> file of each prompt that examples of a mixed file take; None for the model's own prompt.
    """
    prompt_file = prompt_file_of(model.prompt)
    described = {
        "CHECKPOINT_PATH": str(source.path),
        "content of CHECKPOINT_PATH (SHA-256)": content.of_folder(source.path),
        "config of the run that left CHECKPOINT_PATH (SHA-256)": getattr(
            source, "metadata", {}
        ).get("config_digest"),
        "frozen weights of the run that left CHECKPOINT_PATH": source.frozen_digest,
        "utils.RestoreCheckpointConfig.dtype": dtype,
        "PROMPT_FILE": prompt_file and hub.pinned(prompt_file),
        "content of PROMPT_FILE (SHA-256)": prompt_file
        and content.of_bytes(read.load_prompt(prompt_file)[0].tobytes()),
        "PROMPT": content.describe(model.prompt),
        "models.EncoderDecoderModel.decode_fn": content.describe(model.decoder),
        f"network.{type(model.config).__name__}": content.describe(model.config),
        "input vocabulary": describe_vocabulary(model.input_vocabulary),
        "output vocabulary": describe_vocabulary(model.output_vocabulary),
        "INFER_INPUT_FILE": input_file,
        "content of INFER_INPUT_FILE (SHA-256)": input_file and content.of_files([input_file]),
        "MIXTURE_OR_TASK_NAME": cfg.mixture_or_task_name,
        "utils.DatasetConfig.split": cfg.split,
        "the task": None if input_file else describe_dataset(cfg),
        "utils.DatasetConfig.seed": cfg.seed,
        "TASK_DATA_DIR": cfg.data_dir,
        "USE_CACHED_TASKS": cfg.use_cached,
        "TASK_FEATURE_LENGTHS": cfg.task_feature_lengths,
        "BATCH_SIZE": cfg.batch_size,
    }
    if model.method is not None:
        file = model.method.path
        described["METHOD"] = model.method.describe()
        described["METHOD_FILE"] = file and hub.pinned(file)
        described["content of METHOD_FILE (SHA-256)"] = file and digest_of(read_set(file))
    if prompts:
        described["infer.prompts"] = {name: hub.pinned(p) for name, p in prompts.items()}
        described["content of infer.prompts (SHA-256)"] = {
            name: many_prompts.read(path, model).digest() for name, path in prompts.items()
        }
    return described
