"""The step and the second moments that an optimizer starts with.

T5X restores both from the initial checkpoint: its step into the decay of the second moments and into the learning rate,
and the second moments of every parameter that is trained and stored there. A checkpoint of this program that trained
all of them is gone on from in the same way, as LM adaptation does from pre-training.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from absl import logging

from prompt_tuning.checkpoints.optimizer_state.run import (
    RunOptimizerState,
    find_run_optimizer_state,
)
from prompt_tuning.checkpoints.optimizer_state.t5x import (
    SLOTS,
    T5XOptimizerState,
    find_optimizer_state,
)
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import ConfigError
from prompt_tuning.params import layouts
from prompt_tuning.run.arrays import param_of_slot
from prompt_tuning.training.schedules import counted_from
from prompt_tuning.training.trainer import Trainer
from prompt_tuning.types import PyTree

OptimizerState = T5XOptimizerState | RunOptimizerState


def starting_from(
    trainer: Trainer,
    source: ParamSource | None,
    trainable: Mapping[str, jax.ShapeDtypeStruct],
    *,
    resumed: Mapping[str, Any] | None = None,
) -> tuple[Trainer, OptimizerState | None]:
    """Returns the trainer, counting from the step it starts at, and the optimizer state to restore.

    With `restored_step = None` that is the state of a T5X checkpoint or of one of this program, if it has one, and its
    step; else a fresh state at step 0. A given `restored_step` starts at that step with second moments of zero.

    Args:
      trainer: As configured.
      source: The initial checkpoint, None for random weights.
      trainable: Path -> shape of the trained parameters. Those that `source` does not hold, a new prompt, start with
        second moments of zero in any case.
      resumed: What the checkpoint recorded from which the run goes on; its state has all moments. None for a new run.

    Raises:
      ConfigError: If `source` was converted from T5X's format, which leaves the optimizer state behind.
      CheckpointError: If `source` has state for some of these parameters only, or one that Adafactor here cannot use.
    """
    step, restored = trainer.optimizer.restored_step, None
    if step is None and resumed is not None:
        # Checkpoints that do not record it are of runs that started fresh.
        step = int(resumed.get("restored_step", 0))
    elif step is None:
        stored = {} if source is None else source.shapes()
        # A checkpoint of the other layout holds the same parameters under other names.
        wanted = {p: x.shape for p, x in trainable.items() if p in stored or _has_two_names(p)}
        _check_not_converted(source, wanted)
        restored = find_optimizer_state(source, wanted) or find_run_optimizer_state(source, wanted)
        step = 0 if restored is None else restored.step
        text = (
            "Optimizer starts fresh: there is no optimizer state to restore"
            if restored is None
            else f"Optimizer state restored from {restored.path}, at step {step}"
        )
        logging.info("%s", text)
        if jax.process_index() == 0:
            print(text)
    assert step is not None
    started = dataclasses.replace(
        trainer,
        optimizer=dataclasses.replace(trainer.optimizer, restored_step=step),
        learning_rate_fn=counted_from(trainer.learning_rate_fn, step),
        learning_rates_by_regex={
            regex: counted_from(schedule, step)
            for regex, schedule in trainer.learning_rates_by_regex.items()
        },
    )
    return started, restored


def _check_not_converted(source: ParamSource | None, wanted: Mapping[str, Any]) -> None:
    """Raises ConfigError where an optimizer state may have been left behind."""
    # A fresh start would be silent, and train with the learning rate of step 0 what had come to another.
    if wanted and getattr(source, "source_kind", None) == "t5x":
        assert source is not None
        raise ConfigError(
            "Converted weights hold no optimizer state to go on from",
            got=f"{source.path}, converted from a T5X checkpoint",
            expected="the T5X checkpoint itself, or a restored_step",
            fix="start from the T5X checkpoint, or start Adafactor afresh with adafactor.Adafactor.restored_step = 0",
        )


def restore_moments(
    opt_state: PyTree, restored: OptimizerState, shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> PyTree:
    """Returns a fresh optimizer state with restored second moments, read one by one onto the devices of each slot.

    Args:
      opt_state: State of `Adafactor.make(...)`, on its devices.
      restored: What to put in place of its zeros.
      shapes: Path -> shape of the trainable parameters; those that `restored` does not cover keep their zeros.
    """
    with_paths, structure = jax.tree_util.tree_flatten_with_path(opt_state)
    leaves = [leaf for _, leaf in with_paths]
    slots = [_slot_of(key_path, shapes) for key_path, _ in with_paths]
    # From here on `leaves` alone holds them, so that each is freed as another takes its place.
    del with_paths, opt_state
    num_restored = 0
    for i, slot in enumerate(slots):
        if slot is None or not restored.covers(slot[0], shapes[slot[0]].shape):
            continue
        path, name = slot
        shape, sharding = leaves[i].shape, leaves[i].sharding
        array = restored.read_slot(path, shapes[path].shape, name, shape)
        leaves[i] = jax.make_array_from_callback(shape, sharding, lambda index, a=array: a[index])
        num_restored += 1
    assert num_restored % len(SLOTS) == 0 and num_restored > 0, num_restored
    return jax.tree.unflatten(structure, leaves)


def _has_two_names(path: str) -> bool:
    """Whether a parameter is called otherwise in the other layout; prompts are not."""
    return layouts.is_stacked(path) or layouts.scanned_path(path)[0] != path


def _slot_of(key_path: Iterable[Any], params: Mapping[str, Any]) -> tuple[str, str] | None:
    """The parameter and the name of the slot that a leaf of the state is; None for counters."""
    names = [k.name for k in key_path if isinstance(k, jax.tree_util.GetAttrKey)]
    path = param_of_slot(key_path, params)
    return None if path is None or names[-1:] not in [[s] for s in SLOTS] else (path, names[-1])
