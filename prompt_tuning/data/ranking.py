"""Rank classification: the model scores every label, and the likeliest is its answer.

Greedy decoding may answer what is no label at all, as models do that are small or not tuned yet. A ranked task has the
same examples and metrics, but each example once with every label as its target; SeqIO's Evaluator has them scored,
and `run/inference.py` encodes an input once for all its labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.errors import DataError

SUFFIX = "_rank"
_EXAMPLE, _CLASS, _ANSWER = "rank/example", "rank/class", "rank/answer"


def ranked(
    to_text: TextPreprocessor,
    postprocess_fn: PostprocessFn,
    metric_fns: Sequence[MetricFn],
    verbalizers: Sequence[str],
) -> dict[str, Any]:
    """Returns what differs in the ranked form of a task.

    Args:
      to_text: Makes `inputs` and `targets` text of raw examples.
      postprocess_fn: Makes values of decoded text.
      metric_fns: Compare these values.
      verbalizers: Text of each class, by class index.

    Returns:
      `to_text`, `postprocess_fn`, `metric_fns` and `has_cache` of the ranked form, for `registry.make_task`. Its
      examples are numbered as they come, and a cache is written in parts that would each begin at 0: it can have none.
    """
    return {
        "to_text": with_every_label(to_text, verbalizers),
        "postprocess_fn": ranked_target(postprocess_fn),
        "metric_fns": [of_likeliest(fn, postprocess_fn, verbalizers) for fn in metric_fns],
        "has_cache": False,
    }


def with_every_label(to_text: TextPreprocessor, verbalizers: Sequence[str]) -> TextPreprocessor:
    """Returns a preprocessor that makes of every example one for each label.

    Args:
      to_text: Makes `inputs` and `targets` text of raw examples.
      verbalizers: Text of each class, by class index.

    Returns:
      A function over datasets of raw examples that returns those of `to_text` with "targets": each label in turn,
      "rank/example", "rank/class": int64, which of them it is, and "rank/answer": string, the right label.

    Source: T5's `rank_classification`.
    """

    def expand(number: Any, example: Any) -> tf.data.Dataset:
        return (
            tf.data.Dataset.from_tensor_slices(list(verbalizers))
            .enumerate()
            .map(
                lambda index, label: {
                    **example,
                    "targets": label,
                    _EXAMPLE: number,
                    _CLASS: index,
                    _ANSWER: example["targets"],
                }
            )
        )

    def every_label(ds: tf.data.Dataset) -> tf.data.Dataset:
        numbered: Any = to_text(ds).enumerate()
        return numbered.flat_map(expand)

    return every_label


def ranked_target(postprocess_fn: PostprocessFn) -> PostprocessFn:
    """Returns a postprocessor of targets: (which example, which class, the value of the right label).

    Args:
      postprocess_fn: The postprocessor of the task.
    """

    def postprocess(text: str, example: Mapping[str, Any], is_target: bool = False) -> Any:
        if not is_target:
            return text
        answer = bytes(example[_ANSWER]).decode("utf-8")
        value = postprocess_fn(answer, example=example, is_target=True)
        return int(example[_EXAMPLE]), int(example[_CLASS]), value

    return postprocess


def of_likeliest(
    metric_fn: MetricFn, postprocess_fn: PostprocessFn, verbalizers: Sequence[str]
) -> Callable[[Sequence[Any], Sequence[float]], dict[str, Any]]:
    """Returns a metric over log-likelihoods: `metric_fn` of the likeliest label of each example.

    Of equal ones the first class wins. An example of which some labels are not there, as where an evaluation stops
    after so many rows, does not count.

    Args:
      metric_fn: Compares values.
      postprocess_fn: The postprocessor of the task.
      verbalizers: Text of each class, by class index.

    Returns:
      A metric of SeqIO's, which raises DataError where no example is whole.
    """

    # SeqIO tells by the name `scores` that log-likelihoods are wanted.
    def metric(targets: Sequence[Any], scores: Sequence[float]) -> dict[str, Any]:
        likelihoods: dict[int, dict[int, float]] = {}
        values: dict[int, Any] = {}
        for (example, index, value), score in zip(targets, scores, strict=True):
            likelihoods.setdefault(example, {})[index] = score
            values[example] = value
        whole = {n: row for n, row in likelihoods.items() if len(row) == len(verbalizers)}
        if not whole:
            raise DataError(
                "No example has a score for every label",
                got=f"{len(targets)} rows",
                expected=f"at least {len(verbalizers)} rows, one a label",
                fix=f"set EVALUATOR_NUM_EXAMPLES to a multiple of {len(verbalizers)}",
            )
        best = [int(np.argmax([row[i] for i in sorted(row)])) for row in whole.values()]
        answers = [postprocess_fn(verbalizers[index]) for index in best]
        return metric_fn([values[n] for n in whole], answers)

    return metric


def labels_of_examples(dataset: tf.data.Dataset) -> list[list[int]]:
    """Returns, for each example of a ranked task, the positions of its rows in the dataset, by class.

    Args:
      dataset: Examples of a task, with the features that its preprocessors made.

    Returns:
      One list an example; none at all if the task is not ranked.
    """
    spec: Any = dataset.element_spec
    if _EXAMPLE not in spec:
        return []
    rows: dict[int, dict[int, int]] = {}
    for position, example in enumerate(dataset.as_numpy_iterator()):
        rows.setdefault(int(example[_EXAMPLE]), {})[int(example[_CLASS])] = position
    return [[row[index] for index in sorted(row)] for row in rows.values()]
