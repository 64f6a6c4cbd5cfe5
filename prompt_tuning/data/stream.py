"""SeqIO's endless stream of a task or mixture, from any position on, without preprocessing what comes before it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import mixing
from prompt_tuning.data.example_tasks import Tasks, with_number
from prompt_tuning.data.preprocessors import is_of_each_example
from prompt_tuning.types import TASK

# SeqIO's own that read and write a task's features and nothing else, each example by itself.
_READ_FEATURES_ALONE = (
    seqio.preprocessors.tokenize,
    seqio.preprocessors.append_eos,
    seqio.preprocessors.append_eos_after_trim,
)


def endless(
    provider: seqio.Task | seqio.Mixture,
    lengths: Mapping[str, int],
    *,
    split: str,
    use_cached: bool,
    shuffle: bool,
    seed: int,
    start: int,
    form: Callable[[seqio.Task], seqio.Task] | None = None,
    tasks: Tasks = (),
) -> tf.data.Dataset:
    """Returns what SeqIO's `get_dataset` returns for all epochs, without its first examples.

    What has been shuffled is skipped, and preprocessors that make each example by itself
    (`preprocessors.of_each_example`) run behind that: the stream is the same, example by example, and what is skipped
    is neither written as text nor tokenized. The last preprocessor of another kind (one that draws at random, filters,
    makes several examples of one) and all in front of it still run for what is skipped.

    Args:
      provider: A task or mixture.
      lengths: Tokens kept of each feature.
      split: The split.
      use_cached: Whether to read SeqIO's offline cache.
      shuffle: Whether to shuffle.
      seed: Seed of the order, of mixing and of random preprocessing.
      start: Examples to leave out at the start.
      form: Makes of each task the one that is read, with the same features; None reads it as it is.
      tasks: The tasks that are told apart, whose number each example then has (`example_tasks.py`).
    """
    form = form or (lambda task: task)
    how = {"split": split, "use_cached": use_cached, "shuffle": shuffle, "seed": seed}
    if type(provider) is seqio.Task:
        ds = _preprocessed(form(provider), lengths, start=start, **how)
        ds = seqio.trim_dataset(ds, lengths, provider.output_features)
        return with_number(ds, provider.name, tasks)
    if type(provider) is not seqio.Mixture:
        # A class of the user's may read its examples in a way of its own.
        return provider.get_dataset(lengths, num_epochs=None, **how).skip(start)
    mixed = [task for task in provider.tasks if split in task.splits]
    counts, turns = mixing.turns(provider, mixed, seed, start)
    features = mixed[0].output_features
    formed = [form(task) for task in mixed]
    shared = _shared_end(formed, use_cached=use_cached)
    streams = [
        _kept(_preprocessed(task, lengths, start=int(count), leave=len(shared), **how), features)
        for task, count in zip(formed, counts, strict=True)
    ]
    streams = [with_number(ds, task.name, tasks) for ds, task in zip(streams, mixed, strict=True)]
    ds = tf.data.Dataset.choose_from_datasets(streams, turns)
    for preprocessor in shared:
        ds = _bound(preprocessor, lengths, features)(ds)
    return _kept(seqio.trim_dataset(ds, lengths, features), features)


def _kept(ds: tf.data.Dataset, features: Mapping[str, Any]) -> tf.data.Dataset:
    """Returns a dataset with certain features, and the number of its task where it has one, and no others."""
    return ds.map(
        lambda example: {n: x for n, x in example.items() if n in features or n == TASK},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _shared_end(tasks: Sequence[seqio.Task], *, use_cached: bool) -> list[Any]:
    """Returns the last preprocessors of all tasks that may run once, behind the mixing, instead of once a task.

    A mixture has hundreds of tasks, and it takes most of a tenth of a second to make these for one of them.
    """
    features = tasks[0].output_features
    if any(task.output_features != features for task in tasks):
        return []
    ends = [reversed(_split(task, use_cached=use_cached)[1]) for task in tasks]
    shared: list[Any] = []
    for steps in zip(*ends, strict=False):
        # Of others it is not known whether they read what only their task's examples have.
        if steps[0] not in _READ_FEATURES_ALONE or any(step != steps[0] for step in steps):
            break
        shared.insert(0, steps[0])
    return shared


def _preprocessed(
    task: seqio.Task,
    lengths: Mapping[str, int],
    *,
    split: str,
    use_cached: bool,
    shuffle: bool,
    seed: int,
    start: int,
    leave: int = 0,
) -> tf.data.Dataset:
    """Returns the stream of one task before it is trimmed; see `endless`.

    `leave` is how many of its last preprocessors are left to the caller.
    """
    before, behind = _split(task, use_cached=use_cached)
    features = task.output_features
    is_place = [isinstance(step, seqio.CacheDatasetPlaceholder) for step in before]
    unfinished = task.replace(
        preprocessors=[
            step if keeps else _bound(step, lengths, features)
            for step, keeps in zip(before, is_place, strict=True)
        ],
        # SeqIO would check and trim them, and what comes out may still be text.
        output_features={},
        metric_fns=[],
    )
    ds = unfinished.get_dataset(
        lengths, split=split, use_cached=use_cached, shuffle=shuffle, seed=seed, num_epochs=None
    ).skip(start)
    for preprocessor in behind[: len(behind) - leave]:
        ds = _bound(preprocessor, lengths, features)(ds)
    return ds


def _bound(
    preprocessor: Any, lengths: Mapping[str, int], features: Mapping[str, Any]
) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
    """Returns a preprocessor with the arguments that SeqIO would give it."""
    apply: Any = seqio.utils.add_kwargs_to_transform(
        preprocessor, sequence_length=lengths, output_features=features
    )
    return lambda ds: apply(ds)


def _split(task: seqio.Task, *, use_cached: bool) -> tuple[list, list]:
    """Returns the preprocessors in front of the shuffling and those that may run behind it.

    The place of the offline cache stays with what is in front of the shuffling, because it decides on seeds and on what
    is done again in each epoch.
    """
    steps = list(task.preprocessors)
    behind = []
    while steps:
        if isinstance(steps[-1], seqio.CacheDatasetPlaceholder):
            if use_cached and task.supports_caching:
                break
        elif not is_of_each_example(steps[-1]):
            break
        behind.insert(0, steps.pop())
    place = [step for step in behind if isinstance(step, seqio.CacheDatasetPlaceholder)]
    return [*steps, *place], [step for step in behind if step not in place]
