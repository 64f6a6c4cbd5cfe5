"""Which task each example is of: the feature `types.TASK`, for methods that tell tasks apart.

Tasks have the numbers of their places in a list, so that an example has the same number in training, in evaluation and
in whatever mixture it comes from. A place has the names of one task, or of several that count as one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.errors import DataError
from prompt_tuning.types import TASK

# The tasks that are told apart, each by its names; empty where none are.
Tasks = Sequence[Sequence[str]]


def all_names(tasks: Tasks) -> list[str]:
    """Returns the names of all tasks."""
    return [name for names in tasks for name in names]


def number_of(name: str, tasks: Tasks) -> np.int32:
    """Returns the number of the task that has a name, of which there is one (`check_known`)."""
    return np.int32(next(number for number, names in enumerate(tasks) if name in names))


def check_known(names: Sequence[str], tasks: Tasks) -> None:
    """Raises DataError if a task that is read is none of those that are told apart.

    Args:
      names: Names of the tasks that are read.
      tasks: The tasks that are told apart.
    """
    known = all_names(tasks)
    unknown = [name for name in names if name not in known]
    if tasks and unknown:
        raise DataError(
            f"{len(unknown)} of {len(names)} tasks have no prompt of their own",
            got=unknown,
            expected=f"tasks of {known}",
            fix="correct MIXTURE_OR_TASK_NAME, or bind METHOD_TASKS to all tasks before training",
            name=unknown[0],
            candidates=known,
        )


def with_number(ds: tf.data.Dataset, name: str, tasks: Tasks) -> tf.data.Dataset:
    """Returns the examples of a task with its number, int32.

    Args:
      ds: Examples, dicts.
      name: The task.
      tasks: The tasks that are told apart; none leaves examples as they are.

    Raises:
      DataError: The task is none of them.
    """
    if not tasks:
        return ds
    check_known([name], tasks)
    number = number_of(name, tasks)
    return ds.map(lambda example: {**example, TASK: number})


def read_once(
    provider: seqio.Task | seqio.Mixture,
    lengths: Mapping[str, int],
    tasks: Tasks,
    **how: Any,
) -> tf.data.Dataset:
    """Returns what SeqIO's `get_dataset` returns for one epoch, each example with its task's number.

    Args:
      provider: A task or mixture.
      lengths: Tokens kept of each feature.
      tasks: The tasks that are told apart; none leaves examples as they are.
      **how: As `get_dataset` takes it.
    """
    how = {"num_epochs": 1, **how}
    if isinstance(provider, seqio.Task):
        return with_number(provider.get_dataset(lengths, **how), provider.name, tasks)
    if tasks:
        # SeqIO mixes within itself, so the numbers have to be there before.
        parts = [(_numbered(task, tasks), provider.get_rate(task)) for task in provider.tasks]
        provider = seqio.Mixture(provider.name, parts, sample_fn=provider._sample_fn)
        how["passthrough_features"] = [TASK]
    return provider.get_dataset(lengths, **how)


def _numbered(task: seqio.Task, tasks: Tasks) -> seqio.Task:
    """A task whose examples have its number."""
    step = lambda ds: with_number(ds, task.name, tasks)  # noqa: E731
    return task.replace(preprocessors=[*task.preprocessors, step])


def number_evaluated(evaluator: seqio.Evaluator, tasks: Tasks) -> None:
    """Gives the examples of each task that is evaluated its number.

    Args:
      evaluator: Its examples, with model features, are replaced.
      tasks: The tasks that are told apart; none leaves examples as they are.
    """
    examples: Any = evaluator.cached_model_datasets
    for name, ds in examples.items() if tasks else ():
        examples[name] = ds.map(_adding(number_of(name, tasks)))


def _adding(number: np.int32) -> Any:
    """Gives an enumerated example a number."""
    return lambda index, features: (index, {**features, TASK: number})
