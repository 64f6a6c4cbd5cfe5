"""The prompt of one task of a run that tells tasks apart, as a plain prompt."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from prompt_tuning.checkpoints.method_files import kinds, mpt
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files.source import read_source
from prompt_tuning.checkpoints.source import width_recorded
from prompt_tuning.data.example_tasks import all_names, number_of
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.methods.alone import prompt_alone
from prompt_tuning.models.methods.method import Method
from prompt_tuning.params.names import SHARED_PROMPT


def read_task_prompt(
    source: str,
    task: str,
    build_method: Callable[[Mapping[str, Any]], Method],
    *,
    step: str | None = None,
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns the prompt [P, H] float32 that stands in front of a task's inputs, and what it belongs to.

    Args:
      source: What `prompt-tuning export` takes as SOURCE.
      task: The task's name; where tasks have none, as in adapters of PEFT, its number.
      build_method: Makes a method of what a run recorded of it.
      step: See `prompt_files.source.read_source`.

    Raises:
      CheckpointError: If there is nothing at `source`, or it is damaged.
      ConfigError: If it tells no tasks apart, or not this one, or its prompts are more than rows in front of an input.
    """
    found = read_set(source, step=step, setting="SOURCE")
    method = build_method(found.info.get(METHOD) or mpt.describe(found))
    names = all_names(method.task_names)
    if task not in names or method.prompt_sees is not None:
        is_known = task in names
        raise ConfigError(
            f"{source} has no plain prompt of this task",
            got=f"--task={task}"
            + (f", whose prompt sees {method.prompt_sees}" if is_known else ""),
            expected="a prompt that sees all of itself and of the input"
            if is_known
            else f"one of {names}"
            if names
            else "a method that tells tasks apart",
            fix="use the run itself" if is_known else "correct --task, or leave it out",
            name=None if is_known else task,
            candidates=names,
        )
    added = {path.rpartition("/")[2]: x for path, x in found.params.items()}
    prompt, info = None, dict(found.info)
    if SHARED_PROMPT not in added:
        prompt, recorded = read_source(source, step=step)
        info = {**info, **recorded}
    width = width_recorded(info["model"]) if prompt is None else prompt.shape[1]
    assert width is not None, "a part of this kind is of a run, which records its model"
    made = prompt_alone(
        method,
        added,
        prompt,
        np.zeros((1, 1, width), np.float32),
        task=np.array([number_of(task, method.task_names)]),
    )
    # What it belongs to is the model, and what was tuned beside it.
    described = info.pop(METHOD, None) or {}
    parts = described.get("methods", ())
    beside = [part for part in parts if not kinds.changes_prompt({METHOD: part})]
    if beside:
        info[METHOD] = {**described, "methods": beside} if len(beside) > 1 else beside[0]
    return np.asarray(made[0]), {**info, "task": task}
