"""Registers tasks with SeqIO, also where another package has registered the same name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import columns
from prompt_tuning.data.features import text_to_text_features
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.errors import DataError

# Task of ours -> raw examples on which its text is compared; mixture of ours -> its tasks.
_PROBES: dict[str, Sequence[Any]] = {}


def register_task(
    name: str,
    *,
    source: seqio.DataSource,
    to_text: TextPreprocessor,
    postprocess_fn: PostprocessFn,
    metric_fns: Sequence[MetricFn],
    probe: Sequence[Mapping[str, Any]],
    on_ids: Sequence[Callable[..., tf.data.Dataset]] = (),
) -> seqio.Task:
    """Registers a text-to-text task unless the name exists with the same text, as `add_task` does.

    Args:
      name: The task's name.
      source: Its raw examples.
      to_text: Makes `inputs` and `targets` text of raw examples.
      postprocess_fn: Makes values of decoded text.
      metric_fns: Compare these values.
      probe: Raw examples, on which the texts are compared.
      on_ids: Preprocessors of the ids, behind the vocabulary.

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
            *on_ids,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        postprocess_fn=postprocess_fn,
        metric_fns=list(metric_fns),
    )
    return add_task(task, probe)


def add_task(task: seqio.Task, probe: Sequence[Mapping[str, Any]]) -> seqio.Task:
    """Registers a task unless the name exists with the same text.

    A user may also import `t5.data.tasks`, before or after, which holds some of the same names. The task that came
    first is kept if both write the same inputs and targets.

    Args:
      task: The task.
      probe: Raw examples, on which the texts are compared.

    Returns:
      The registered task.

    Raises:
      DataError: The name is taken by a task with other text.
    """
    _keep_ours(seqio.TaskRegistry, _check_task)
    if task.name not in seqio.TaskRegistry.names():
        seqio.TaskRegistry.add_provider(task.name, task)
        _PROBES[task.name] = probe
        return task
    existing = seqio.TaskRegistry.get(task.name)
    _check_texts(task.name, texts(task, probe), texts(existing, probe))
    return existing


def _check_task(task: seqio.Task) -> None:
    """Raises DataError unless a task that comes later writes the text of ours."""
    probe = _PROBES[task.name]
    ours = seqio.TaskRegistry.get(task.name)
    _check_texts(task.name, texts(ours, probe), texts(task, probe))


def _check_texts(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
    """Raises DataError if two tasks of one name write other texts."""
    if ours == theirs:
        return
    differing = [(t, o) for t, o in zip(theirs, ours, strict=False) if t != o]
    first = differing[0] if differing else (theirs, ours)
    raise DataError(
        f"Task {name!r} is already registered with other text",
        got=first[0],
        expected=f"the text {first[1]!r}",
        fix="do not import the module that registers the other task, or rename that task",
    )


def register_mixture(name: str, tasks: Sequence[str] | Mapping[str, float]) -> seqio.Mixture:
    """Registers a mixture of tasks, unless the name exists with the same tasks.

    Args:
      name: The mixture's name.
      tasks: Names of registered tasks, in equal shares; or name -> rate. A task of rate 0 is evaluated only.

    Raises:
      DataError: The name is taken by a mixture of other tasks.
    """
    rates = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
    _keep_ours(seqio.MixtureRegistry, _check_mixture)
    if name not in seqio.MixtureRegistry.names():
        _PROBES[name] = sorted(rates)
        return seqio.MixtureRegistry.add(name, list(rates.items()))
    existing = seqio.MixtureRegistry.get(name)
    _check_tasks(name, sorted(rates), existing)
    return existing


def _check_mixture(mixture: seqio.Mixture) -> None:
    """Raises DataError unless a mixture that comes later has the tasks of ours."""
    _check_tasks(mixture.name, _PROBES[mixture.name], mixture)


def _check_tasks(name: str, ours: Sequence[str], theirs: seqio.Mixture) -> None:
    """Raises DataError unless a mixture has certain tasks."""
    names = sorted(task.name for task in theirs.tasks)
    if names != list(ours):
        raise DataError(
            f"Mixture {name!r} is already registered with other tasks",
            got=names,
            expected=f"{ours}",
            fix="do not import the module that registers the other mixture, or rename it",
        )


def _keep_ours(registry: Any, check: Callable[[Any], None]) -> None:
    """Lets a package that is imported later register a name of ours: what is the same is dropped, not refused.

    SeqIO refuses every name that it has, so that `t5.data.tasks` could only be imported before this module.
    """
    add_provider = registry.add_provider
    if hasattr(add_provider, "keeps_ours"):
        return

    def keeping(cls: Any, name: str, provider: Any) -> None:
        if name in _PROBES and name in cls.names():
            check(provider)
        else:
            add_provider(name, provider)

    keeping.keeps_ours = True  # pyright: ignore[reportFunctionMemberAccess]
    registry.add_provider = classmethod(keeping)


def texts(task: seqio.Task, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns the text that a task makes of raw examples, before any vocabulary is involved.

    Args:
      task: A task that tokenizes with `seqio.preprocessors.tokenize`.
      rows: Raw examples, as `columns.from_rows` takes them.

    Returns:
      (inputs, targets) of each example that results.
    """
    ds = columns.as_dataset(columns.from_rows(rows))
    for preprocess in task.preprocessors:
        if unwrap(preprocess) is seqio.preprocessors.tokenize:
            break
        if not isinstance(preprocess, seqio.CacheDatasetPlaceholder):
            ds = seqio.utils.add_kwargs_to_transform(
                preprocess, sequence_length=None, output_features=task.output_features
            )(ds)
    return [
        (bytes(example["inputs"]).decode("utf-8"), bytes(example["targets"]).decode("utf-8"))
        for example in ds.as_numpy_iterator()
    ]


def unwrap(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function below `functools.partial`.

    Args:
      fn: A function, or a partial application of one.
    """
    while hasattr(fn, "func"):
        fn = fn.func
    return fn
