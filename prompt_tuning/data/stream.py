"""SeqIO's endless stream of a task or mixture, from any position on, without preprocessing what comes before it."""

from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import mixing
from prompt_tuning.data.preprocessors import is_of_each_example


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
    """
    form = form or (lambda task: task)
    how = {"split": split, "use_cached": use_cached, "shuffle": shuffle, "seed": seed}
    if type(provider) is seqio.Task:
        return _of_task(form(provider), lengths, start=start, **how)
    if type(provider) is not seqio.Mixture:
        # A class of the user's may read its examples in a way of its own.
        return provider.get_dataset(lengths, num_epochs=None, **how).skip(start)
    tasks = [task for task in provider.tasks if split in task.splits]
    counts, turns = mixing.turns(provider, tasks, seed, start)
    features = tasks[0].output_features
    streams = [
        _of_task(form(task), lengths, start=int(count), **how).map(
            lambda example: {name: x for name, x in example.items() if name in features},
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for task, count in zip(tasks, counts, strict=True)
    ]
    return tf.data.Dataset.choose_from_datasets(streams, turns)


def _of_task(
    task: seqio.Task,
    lengths: Mapping[str, int],
    *,
    split: str,
    use_cached: bool,
    shuffle: bool,
    seed: int,
    start: int,
) -> tf.data.Dataset:
    """Returns the stream of one task; see `endless`."""
    before, behind = _split(task, use_cached=use_cached)
    features = task.output_features

    def bound(preprocessor: Any) -> Callable[[tf.data.Dataset], tf.data.Dataset]:
        apply: Any = seqio.utils.add_kwargs_to_transform(
            preprocessor, sequence_length=lengths, output_features=features
        )
        return lambda ds: apply(ds)

    is_place = [isinstance(step, seqio.CacheDatasetPlaceholder) for step in before]
    unfinished = task.replace(
        preprocessors=[
            step if keeps else bound(step) for step, keeps in zip(before, is_place, strict=True)
        ],
        # SeqIO would check and trim them, and what comes out may still be text.
        output_features={},
        metric_fns=[],
    )
    ds = unfinished.get_dataset(
        lengths, split=split, use_cached=use_cached, shuffle=shuffle, seed=seed, num_epochs=None
    ).skip(start)
    for preprocessor in behind:
        ds = bound(preprocessor)(ds)
    return seqio.trim_dataset(ds, lengths, features)


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
