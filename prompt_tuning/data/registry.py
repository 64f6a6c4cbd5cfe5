"""Registers tasks with SeqIO, also where another package has registered the same name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data.features import text_to_text_features
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.errors import DataError


def register_task(
    name: str,
    *,
    source: seqio.DataSource,
    to_text: TextPreprocessor,
    postprocess_fn: PostprocessFn,
    metric_fns: Sequence[MetricFn],
    probe: Mapping[str, Any],
) -> seqio.Task:
    """Registers a text-to-text task unless the name exists with the same text.

    A user may also import `t5.data.tasks`, which holds some of the same names. Such a task is kept if it writes the
    same inputs and targets.

    Args:
      name: The task's name.
      source: Its raw examples.
      to_text: Makes `inputs` and `targets` text of raw examples.
      postprocess_fn: Makes values of decoded text.
      metric_fns: Compare these values.
      probe: Raw examples as columns, on which the texts are compared.

    Returns:
      The registered task.

    Raises:
      DataError: The name is taken by a task with other text.
    """
    task = seqio.Task(
        name,
        source=source,
        output_features=text_to_text_features(),
        preprocessors=[
            to_text,
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        postprocess_fn=postprocess_fn,
        metric_fns=list(metric_fns),
    )
    if name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add_provider(name, task)
        return task
    existing = seqio.TaskRegistry.get(name)
    ours, theirs = texts(task, probe), texts(existing, probe)
    if ours != theirs:
        differing = [(t, o) for t, o in zip(theirs, ours, strict=False) if t != o]
        first = differing[0] if differing else (theirs, ours)
        raise DataError(
            f"Task {name!r} is already registered with other text",
            got=first[0],
            expected=f"the text {first[1]!r}",
            fix="do not import the module that registers the other task, or rename that task",
        )
    return existing


def register_mixture(name: str, tasks: Sequence[str]) -> seqio.Mixture:
    """Registers a mixture of tasks in equal shares, unless the name exists with the same tasks.

    Args:
      name: The mixture's name.
      tasks: Names of registered tasks.

    Raises:
      DataError: The name is taken by a mixture of other tasks.
    """
    if name not in seqio.MixtureRegistry.names():
        return seqio.MixtureRegistry.add(name, [(task, 1.0) for task in tasks])
    existing = seqio.MixtureRegistry.get(name)
    names = sorted(task.name for task in existing.tasks)
    if names != sorted(tasks):
        raise DataError(
            f"Mixture {name!r} is already registered with other tasks",
            got=names,
            expected=f"{sorted(tasks)}",
            fix="do not import the module that registers the other mixture, or rename it",
        )
    return existing


def texts(task: seqio.Task, columns: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the text that a task makes of raw examples, before any vocabulary is involved.

    Args:
      task: A task that tokenizes with `seqio.preprocessors.tokenize`.
      columns: Raw examples as columns.

    Returns:
      (inputs, targets) per example.
    """
    tensors: Any = dict(columns)
    ds = tf.data.Dataset.from_tensor_slices(tensors)
    for preprocess in task.preprocessors:
        if _unwrap(preprocess) is seqio.preprocessors.tokenize:
            break
        if not isinstance(preprocess, seqio.CacheDatasetPlaceholder):
            ds = seqio.utils.add_kwargs_to_transform(
                preprocess, sequence_length=None, output_features=task.output_features
            )(ds)
    return [
        (bytes(example["inputs"]).decode("utf-8"), bytes(example["targets"]).decode("utf-8"))
        for example in ds.as_numpy_iterator()
    ]


def _unwrap(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function below `functools.partial`."""
    while hasattr(fn, "func"):
        fn = fn.func
    return fn
