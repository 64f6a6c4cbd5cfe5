"""The first examples of a task without a pipeline, which takes TensorFlow a tenth of a second to make.

Mixtures have hundreds of tasks, and each is looked at before a run starts. What is known here are sources and
preprocessors that say what they do with examples at hand (`sources.FilesDataSource.rows`, `preprocessors.over_rows`),
and SeqIO's tokenizing.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data.preprocessors import Rows, rows_function
from prompt_tuning.data.sources import FilesDataSource


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
    rows = task.source.rows(split)
    for step in task.preprocessors:
        if isinstance(step, seqio.CacheDatasetPlaceholder):
            continue
        function = _function(step, task.output_features)
        if rows is None or function is None:
            return None
        rows = function(rows)
    return None if rows is None else map(_arrays, rows)


def _function(
    step: Callable[..., Any], features: Mapping[str, Any]
) -> Callable[[Rows], Rows] | None:
    """What a preprocessor does with examples at hand, None where that is not known."""
    if step is seqio.preprocessors.tokenize:
        return lambda rows: (seqio.preprocessors.tokenize_impl(row, features) for row in rows)
    if step is seqio.preprocessors.append_eos_after_trim:
        end = seqio.preprocessors.append_eos_after_trim_impl
        return lambda rows: (end(dict(row), features) for row in rows)
    return rows_function(step)


def _arrays(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example as datasets have it in NumPy: arrays, and bytes for a text."""
    return {
        name: value.numpy() if tf.is_tensor(value) else np.asarray(value, object)[()]
        for name, value in example.items()
    }
