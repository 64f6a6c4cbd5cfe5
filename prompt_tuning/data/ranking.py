"""Rank classification: the model scores every label, and the likeliest is its answer.

Greedy decoding may answer what is no label at all, as models do that are small or not tuned yet. A ranked task has the
same examples and metrics, but each example once with every label as its target; SeqIO's Evaluator has them scored.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor

SUFFIX = "_rank"
_EXAMPLE, _CLASS, _ANSWER = "rank/example", "rank/class", "rank/answer"


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

    def preprocess(ds: tf.data.Dataset) -> tf.data.Dataset:
        numbered: Any = to_text(ds).enumerate()
        return numbered.flat_map(expand)

    return preprocess


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

    Of equal ones the first class wins.

    Args:
      metric_fn: Compares values.
      postprocess_fn: The postprocessor of the task.
      verbalizers: Text of each class, by class index.
    """

    # SeqIO tells by the name `scores` that log-likelihoods are wanted.
    def metric(targets: Sequence[Any], scores: Sequence[float]) -> dict[str, Any]:
        likelihoods: dict[int, np.ndarray] = {}
        values: dict[int, Any] = {}
        for (example, index, value), score in zip(targets, scores, strict=True):
            row = likelihoods.setdefault(example, np.full(len(verbalizers), -np.inf))
            row[index] = score
            values[example] = value
        answers = [verbalizers[int(np.argmax(row))] for row in likelihoods.values()]
        return metric_fn(list(values.values()), [postprocess_fn(text) for text in answers])

    return metric
