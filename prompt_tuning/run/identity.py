"""What makes a run the run it is: its number of updates, its seed, and what it records of itself."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from prompt_tuning.checkpoints.load import ParamSource
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.data import batches
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel


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
    logging.info(
        "TRAIN_STEPS = %d includes the %d of the T5X checkpoint: this run makes %d updates.",
        total,
        source.step,
        total - source.step,
    )
    if jax.process_index() == 0:
        print(
            f"TRAIN_STEPS {total} - checkpoint step {source.step} = {total - source.step} updates"
        )
    return total - source.step


def agree_on_seed(random_seed: int | None, checkpointer: Checkpointer) -> int:
    """Returns the config's seed, else the one the run was started with, else one drawn here for all processes."""
    latest = checkpointer.latest_step()
    if random_seed is not None:
        return random_seed
    if latest is not None:
        return int(checkpointer.metadata(latest)["seed"])
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
        "model": dataclasses.asdict(model.config),
        "prompt_length": model.prompt.length if model.prompt else 0,
        "model_dir": os.path.abspath(model_dir) if is_local else model_dir,
        "config_digest": hashlib.sha256(config_text.encode()).hexdigest(),
    }


def check_same_run(checkpointer: Checkpointer, metadata: Mapping[str, Any]) -> None:
    """Raises ConfigError if MODEL_DIR holds a run on another task, batch size or seed."""
    latest = checkpointer.latest_step()
    if latest is None:
        return
    resumed = checkpointer.metadata(latest)
    for name, macro in (
        ("task", "MIXTURE_OR_TASK_NAME"),
        ("batch_size", "BATCH_SIZE"),
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
