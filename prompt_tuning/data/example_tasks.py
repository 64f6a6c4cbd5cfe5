"""Which task each example is of: the feature `types.TASK`, for methods that tell tasks apart.

Tasks have the numbers of their places in a list of names, so that an example has the same number in training, in
evaluation and in whatever mixture it comes from.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.errors import DataError
from prompt_tuning.types import TASK


def check_known(names: Sequence[str], tasks: Sequence[str]) -> None:
    """Raises DataError if a task that is read is none of those that are told apart.

    Args:
      names: Names of the tasks that are read.
      tasks: Names of the tasks that are told apart; none if none are.
    """
    unknown = [name for name in names if name not in tasks]
    if tasks and unknown:
        raise DataError(
            f"{len(unknown)} of {len(names)} tasks have no prompt of their own",
            got=unknown,
            expected=f"tasks of {list(tasks)}",
            fix="correct MIXTURE_OR_TASK_NAME, or bind METHOD_TASKS to all tasks before training",
            name=unknown[0],
            candidates=tasks,
        )


def with_number(ds: tf.data.Dataset, name: str, tasks: Sequence[str]) -> tf.data.Dataset:
    """Returns the examples of a task with its number, int32.

    Args:
      ds: Examples, dicts.
      name: The task.
      tasks: Names of the tasks that are told apart; none leaves examples as they are.

    Raises:
      DataError: The task is none of them.
    """
    if not tasks:
        return ds
    check_known([name], tasks)
    number = np.int32(list(tasks).index(name))
    return ds.map(lambda example: {**example, TASK: number})


def read_once(
    provider: seqio.Task | seqio.Mixture,
    lengths: Mapping[str, int],
    tasks: Sequence[str],
    **how: Any,
) -> tf.data.Dataset:
    """Returns what SeqIO's `get_dataset` returns for one epoch, each example with its task's number.

    Args:
      provider: A task or mixture.
      lengths: Tokens kept of each feature.
      tasks: Names of the tasks that are told apart; none leaves examples as they are.
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


def _numbered(task: seqio.Task, tasks: Sequence[str]) -> seqio.Task:
    """A task whose examples have its number."""
    step = lambda ds: with_number(ds, task.name, tasks)  # noqa: E731
    return task.replace(preprocessors=[*task.preprocessors, step])


def number_evaluated(evaluator: seqio.Evaluator, tasks: Sequence[str]) -> None:
    """Gives the examples of each task that is evaluated its number.

    Args:
      evaluator: Its examples, with model features, are replaced.
      tasks: Names of the tasks that are told apart; none leaves examples as they are.
    """
    examples: Any = evaluator.cached_model_datasets
    for name, ds in examples.items() if tasks else ():
        number = np.int32(list(tasks).index(name))
        examples[name] = ds.map(_adding(number))


def _adding(number: np.int32) -> Any:
    """Gives an enumerated example a number."""
    return lambda index, features: (index, {**features, TASK: number})
