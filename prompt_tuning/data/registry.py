"""Registers tasks with SeqIO, also where another package has registered the same name."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf
from absl import logging

from prompt_tuning.data import columns
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.data.verbalizers import register_verbalizers
from prompt_tuning.data.vocabularies import RunVocabulary
from prompt_tuning.errors import ConfigError, DataError

# Name -> task of ours and the raw examples on which its text is compared, or mixture of ours and its rates.
_OURS: dict[str, tuple[Any, Any]] = {}


# Name -> task or mixture that `replace_task` or `replace_mixture` has registered.
_REPLACEABLE: dict[str, seqio.Task | seqio.Mixture] = {}

Preprocessors = Sequence[Callable[..., tf.data.Dataset]]


def text_to_text_features(*, inputs_end: bool = True) -> dict[str, seqio.utils.Feature]:
    """Returns T5's two output features, tokenized with the run's vocabulary and ended by EOS.

    Args:
      inputs_end: Whether inputs end with EOS too; T0's do not.

    Returns:
      `inputs` (may be absent, as in T5: a language model has only targets) and `targets`.
    """
    return {
        "inputs": seqio.Feature(vocabulary=RunVocabulary(), add_eos=inputs_end, required=False),
        "targets": seqio.Feature(vocabulary=RunVocabulary(), add_eos=True),
    }


def make_task(
    name: str,
    *,
    source: seqio.DataSource,
    to_text: TextPreprocessor,
    postprocess_fn: PostprocessFn | None = None,
    metric_fns: Sequence[MetricFn] = (),
    on_ids: Preprocessors = (),
    behind_cache: Preprocessors = (),
    has_cache: bool = True,
    inputs_end: bool = True,
    shuffle_buffer_size: int = seqio.SHUFFLE_BUFFER_SIZE,
) -> seqio.Task:
    """Returns a text-to-text task that is not registered yet.

    Args:
      name: The task's name.
      source: Its raw examples.
      to_text: Makes `inputs` and `targets` text of raw examples.
      postprocess_fn: Makes values of decoded text.
      metric_fns: Compare these values.
      on_ids: Preprocessors of the ids, behind the vocabulary.
      behind_cache: Preprocessors of ids that come from the cache, where there is one.
      has_cache: Whether the ids may be cached.
      inputs_end: Whether inputs end with EOS.
      shuffle_buffer_size: Examples among which SeqIO shuffles those of the source; 1 where that orders all at random.

    Raises:
      ConfigError: The name has other characters than SeqIO allows.
    """
    try:
        return seqio.Task(
            name,
            source=source,
            output_features=text_to_text_features(inputs_end=inputs_end),
            preprocessors=[
                to_text,
                seqio.preprocessors.tokenize,
                *on_ids,
                # What lies behind depends on the lengths or the seed of a run: one cache serves all of them.
                *([seqio.CacheDatasetPlaceholder()] if has_cache else []),
                *behind_cache,
                seqio.preprocessors.append_eos_after_trim,
            ],
            postprocess_fn=postprocess_fn,
            metric_fns=list(metric_fns),
            shuffle_buffer_size=shuffle_buffer_size,
        )
    except ValueError as error:
        raise ConfigError(
            f"The task cannot be registered ({error})",
            got=name,
            expected="a name of letters, digits, points and underscores",
            fix="choose such a name",
        ) from error


def register_task(
    name: str,
    *,
    probe: Sequence[Mapping[str, Any]],
    verbalizers: Sequence[str] = (),
    **parts: Any,
) -> seqio.Task:
    """Registers a text-to-text task, as `add_task` does.

    Args:
      name: The task's name.
      probe: Raw examples, on which its text is compared with that of a task of the same name.
      verbalizers: Text of each class, by class index; none where targets are free text.
      **parts: As `make_task` takes them.

    Returns:
      The registered task.

    Raises:
      DataError: The name is taken by another task.
    """
    task = add_task(make_task(name, **parts), probe)
    register_verbalizers(name, verbalizers)
    return task


def replace_task(name: str, task: seqio.Task | None, verbalizers: Sequence[str] = ()) -> None:
    """Registers a user's task; one that this function registered before under the name makes way.

    A notebook's cell may so run twice.

    Args:
      name: The task's name.
      task: The task; None where the name is to stand for none any more.
      verbalizers: Text of each class, by class index; none where targets are free text.

    Raises:
      ConfigError: The name is that of a task or mixture of another module.
    """
    _remove_replaceable(seqio.TaskRegistry, name)
    if task is not None:
        _check_free(name)
        seqio.TaskRegistry.add_provider(name, task)
        _REPLACEABLE[name] = task
        register_verbalizers(name, verbalizers)


def replace_mixture(name: str, rates: Mapping[str, float]) -> None:
    """Registers a user's mixture; one that this function registered before under the name makes way.

    Args:
      name: The mixture's name.
      rates: Name of a registered task -> rate. A task of rate 0 is evaluated only.

    Raises:
      ConfigError: The name is that of a task or mixture of another module.
      DataError: The rates mix nothing.
    """
    check_rates(name, rates)
    _remove_replaceable(seqio.MixtureRegistry, name)
    _check_free(name)
    _REPLACEABLE[name] = seqio.MixtureRegistry.add(name, list(rates.items()))


def _remove_replaceable(registry: Any, name: str) -> None:
    """Removes from a registry what `replace_task` or `replace_mixture` has registered there under a name."""
    if name in registry.names() and _REPLACEABLE.get(name) is registry.get(name):
        registry.remove(name)


def _check_free(name: str) -> None:
    """Raises ConfigError if a task or mixture has the name."""
    for kind, registry in (("task", seqio.TaskRegistry), ("mixture", seqio.MixtureRegistry)):
        if name in registry.names():
            raise ConfigError(
                f"A {kind} of another module has this name",
                got=name,
                expected="a name of its own",
                fix="choose another name, or do not import the module that registers the other one",
            )


def add_task(task: seqio.Task, probe: Sequence[Mapping[str, Any]]) -> seqio.Task:
    """Registers a task, also where T5 has the name.

    A user may also import `t5.data.tasks`, before or after, which holds some of the same names. If both write the same
    inputs and targets, this one is kept or takes its place: it reads `TASK_DATA_DIR` and has the run's vocabulary.

    Args:
      task: The task.
      probe: Raw examples, on which the texts are compared.

    Returns:
      The registered task; the earlier one, if it is from here too.

    Raises:
      DataError: The name is taken by a task with other text, or by one of neither T5 nor this package.
    """
    _keep_ours(seqio.TaskRegistry, _check_task)
    if task.name in seqio.TaskRegistry.names():
        existing = seqio.TaskRegistry.get(task.name)
        _check_texts(task.name, texts(task, probe), _texts_of_others(existing, probe))
        if _is_ours(existing):
            return existing
        if not _is_of_t5(existing):
            raise DataError(
                f"Task {task.name!r} is already registered by another module",
                got=f"a task of the same text, with the source {existing.source}",
                expected="the name free, or a task of t5",
                fix="rename that task: its source, metrics and vocabulary may differ from those here",
            )
        logging.info("%r of t5 has the same text as the task here, and makes way for it", task.name)
        seqio.TaskRegistry.remove(task.name)
    seqio.TaskRegistry.add_provider(task.name, task)
    _OURS[task.name] = task, probe
    return task


def _check_task(task: seqio.Task) -> bool:
    """Returns whether a task that comes later is T5's of the same text; raises DataError if T5's has another."""
    if not _is_of_t5(task):
        return False
    ours, probe = _OURS[task.name]
    _check_texts(task.name, texts(ours, probe), _texts_of_others(task, probe))
    return True


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


def _texts_of_others(task: seqio.Task, probe: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Returns the texts of a task that may want other fields, or make something else of them."""
    try:
        return texts(task, probe)
    except Exception as error:
        # TensorFlow puts a traceback before the message.
        last_line = (str(error).strip().splitlines() or [""])[-1].strip()
        raise DataError(
            f"Task {task.name!r} is already registered with other text",
            got=f"a task that fails on this data set's examples ({type(error).__name__}: {last_line})",
            expected=f"text of the fields {', '.join(probe[0])}",
            fix="do not import the module that registers the other task, or rename that task",
        ) from error


def _is_ours(provider: Any) -> bool:
    """Returns whether a task or mixture was registered here."""
    return _OURS.get(provider.name, (None,))[0] is provider


def _is_of_t5(task: seqio.Task) -> bool:
    """Returns whether a function of a task is from the package t5."""
    functions = [*task.preprocessors, *task.metric_fns]
    modules = [getattr(unwrap(fn), "__module__", None) or "" for fn in functions]
    return any(module.startswith("t5.") for module in modules)


def register_mixture(name: str, tasks: Sequence[str] | Mapping[str, float]) -> seqio.Mixture:
    """Registers a mixture of tasks, also where the name exists with the same tasks and rates.

    An earlier one that is not from here makes way, since it holds the tasks that were registered then.

    Args:
      name: The mixture's name.
      tasks: Names of registered tasks, in equal shares; or name -> rate. A task of rate 0 is evaluated only.

    Returns:
      The registered mixture; the earlier one, if it is from here too.

    Raises:
      DataError: The name is taken by a mixture of other tasks or rates, or the rates mix nothing.
    """
    rates = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
    check_rates(name, rates)
    _keep_ours(seqio.MixtureRegistry, _check_mixture)
    if name in seqio.MixtureRegistry.names():
        existing = seqio.MixtureRegistry.get(name)
        _check_same_rates(name, rates, existing)
        if _is_ours(existing):
            return existing
        logging.info(
            "Mixture %r of another module is the same as the one here, and makes way", name
        )
        seqio.MixtureRegistry.remove(name)
    mixture = seqio.MixtureRegistry.add(name, list(rates.items()))
    _OURS[name] = mixture, rates
    return mixture


def _check_mixture(mixture: seqio.Mixture) -> bool:
    """Returns True; raises DataError unless a mixture that comes later has the tasks and rates of ours."""
    _check_same_rates(mixture.name, _OURS[mixture.name][1], mixture)
    return True


def check_rates(name: str, rates: Mapping[str, float]) -> None:
    """Raises DataError unless tasks can be mixed at these rates: finite ones from 0 on, and one above 0.

    Args:
      name: The mixture's name.
      rates: Task -> rate.
    """
    wrong = {task: rate for task, rate in rates.items() if not 0 <= rate < math.inf}
    if wrong or not any(rates.values()):
        raise DataError(
            f"The rates of the tasks of mixture {name!r} mix nothing",
            got=wrong or dict(rates),
            expected="rates of 0 or more, and one above 0 at least",
            fix="correct the rates where the mixture is registered",
        )


def _check_same_rates(name: str, ours: Mapping[str, float], theirs: seqio.Mixture) -> None:
    """Raises DataError unless a mixture has certain tasks at certain rates."""
    found = {task.name: theirs.get_rate(task) for task in theirs.tasks}
    if found != ours:
        raise DataError(
            f"Mixture {name!r} is already registered with other tasks or rates",
            got=dict(sorted(found.items())),
            expected=f"{dict(sorted(ours.items()))}",
            fix="do not import the module that registers the other mixture, or rename it",
        )


def _keep_ours(registry: Any, is_same: Callable[[Any], bool]) -> None:
    """Lets T5, imported later, register a name of ours: what is the same is dropped, not refused.

    SeqIO refuses every name that it has, so that `t5.data.tasks` could only be imported before this module.
    """
    add_provider = registry.add_provider
    if hasattr(add_provider, "keeps_ours"):
        return

    def keeping(cls: Any, name: str, provider: Any) -> None:
        is_taken = name in cls.names() and _is_ours(cls.get(name))
        if is_taken and provider is not cls.get(name) and is_same(provider):
            logging.info("%r is registered already, with the same content, which is kept", name)
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
