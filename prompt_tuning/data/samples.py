"""The first examples of a task without a pipeline, which takes TensorFlow a tenth of a second to make.

Mixtures have hundreds of tasks, and each is looked at before a run starts. What is known here are sources and
preprocessors that say what they make of one example at hand (`sources.FilesDataSource.rows`, `preprocessors.by_row`),
and SeqIO's tokenizing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data.preprocessors import row_function
from prompt_tuning.data.sources import FilesDataSource

_Row = Mapping[str, Any]


def first(task: seqio.Task, split: str) -> Iterator[dict[str, Any]] | None:
    """Returns the examples of a split in order, as `task.get_dataset` makes them without lengths and shuffling.

    Args:
      task: The task.
      split: The split.

    Returns:
      {feature: array} of each example; None where that takes a pipeline.

    Raises:
      Exception: What the source or a preprocessor raises, at the example that it concerns.
    """
    # A class of the user's may read its examples in a way of its own.
    if type(task) is not seqio.Task or not isinstance(task.source, FilesDataSource):
        return None
    steps = [
        _function(step, task.output_features)
        for step in task.preprocessors
        if not isinstance(step, seqio.CacheDatasetPlaceholder)
    ]
    rows = task.source.rows(split)
    if rows is None or None in steps:
        return None
    return _made(rows, [step for step in steps if step is not None])


def _made(
    rows: Iterator[_Row], steps: list[Callable[[Any], _Row | None]]
) -> Iterator[dict[str, Any]]:
    """The examples that are not dropped."""
    for row in rows:
        example: _Row | None = row
        for step in steps:
            example = None if example is None else step(example)
        if example is not None:
            yield {name: _array(value) for name, value in example.items()}


def _function(
    step: Callable[..., Any], features: Mapping[str, Any]
) -> Callable[[Any], _Row | None] | None:
    """What a preprocessor makes of one example, None where that is not known."""
    if step is seqio.preprocessors.tokenize:
        return lambda example: seqio.preprocessors.tokenize_impl(example, features)
    if step is seqio.preprocessors.append_eos_after_trim:
        return lambda example: seqio.preprocessors.append_eos_after_trim_impl(
            dict(example), features
        )
    return row_function(step)


def _array(value: Any) -> Any:
    """A value as datasets have it in NumPy: arrays, and bytes for a text."""
    return value.numpy() if tf.is_tensor(value) else np.asarray(value, object)[()]
