"""Rank classification: the model scores every label, and the likeliest is its answer.

The labels are those of the task, or, for tasks of templates, choices of each example (`ranked_choices`).

Greedy decoding may answer what is no label at all, as models do that are small or not tuned yet. A ranked task has the
same examples and metrics, but each example once with every label as its target; SeqIO's Evaluator has them scored, and
`run/inference.py` encodes an input once for all its labels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from prompt_tuning.data.metrics import MetricFn, accuracy
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import Rows, TextPreprocessor, over_rows, rows_function
from prompt_tuning.errors import DataError

SUFFIX = "_rank"
_EXAMPLE, _CLASS, _ANSWER = "rank/example", "rank/class", "rank/answer"
_CHOICES, _RIGHT = "rank/choices", "rank/is_right"


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


class Choice(NamedTuple):
    """One answer choice of one example, as `ranked_choices` hands it to its metric.

    Attributes:
      example: Which example.
      index: Which of its choices.
      num: How many it has.
      is_right: Whether this one is the answer.
      length: Its tokens, EOS included; 1 where choices count by the sum over their tokens.
    """

    example: int
    index: int
    num: int
    is_right: bool
    length: int


def ranked_choices(to_text: TextPreprocessor, *, length_normalized: bool = False) -> dict[str, Any]:
    """Returns the parts of a task that ranks the choices of each example, however many that has.

    An answer that is none of its example's choices counts as wrong.

    Args:
      to_text: Makes `inputs`, `targets` and `answer_choices` text of raw examples.
      length_normalized: Whether a choice counts by its mean log-likelihood per token, EOS included (T-Few), or by the
        sum over its tokens (T0).

    Returns:
      As `ranked`.

    Source: T5's `rank_classification`, of which the accuracy alone is kept: T0 and T-Few report no other metric.
    """

    def postprocess(text: str, example: Mapping[str, Any], is_target: bool = False) -> Any:
        if not is_target:
            return text
        length = len(example["targets"]) if length_normalized else 1
        number, index, num = (int(example[name]) for name in (_EXAMPLE, _CLASS, _CHOICES))
        return Choice(number, index, num, bool(example[_RIGHT]), length)

    return {
        "to_text": with_every_label(to_text, None),
        "postprocess_fn": postprocess,
        "metric_fns": [accuracy_of_choices],
        "has_cache": False,
    }


def accuracy_of_choices(targets: Sequence[Choice], scores: Sequence[float]) -> dict[str, Any]:
    """Returns `accuracy` in percent: of how many examples the likeliest choice is right; of equal ones the first wins.

    Args:
      targets: The choices; an example of which some are not there does not count.
      scores: Log-likelihood of each choice.

    Raises:
      DataError: No example is whole.
    """
    likelihoods: dict[int, dict[int, float]] = {}
    is_right = {}
    num = {}
    for choice, score in zip(targets, scores, strict=True):
        likelihoods.setdefault(choice.example, {})[choice.index] = score / choice.length
        is_right[choice.example, choice.index] = choice.is_right
        num[choice.example] = choice.num
    whole = {n: row for n, row in likelihoods.items() if len(row) == num[n]}
    if not whole:
        raise _none_is_whole(len(targets), max(num.values(), default=1))
    best = [(n, max(sorted(row), key=lambda i: row[i])) for n, row in whole.items()]
    return accuracy([True] * len(best), [is_right[place] for place in best])


def with_every_label(
    to_text: TextPreprocessor, verbalizers: Sequence[str] | None
) -> TextPreprocessor:
    """Returns a preprocessor that makes of every example one for each label.

    Args:
      to_text: Makes `inputs` and `targets` text of raw examples.
      verbalizers: Text of each class, by class index; None for the example's own `answer_choices`.

    Returns:
      A function over datasets of raw examples that returns those of `to_text` with "targets": each label in turn,
      "rank/example", "rank/class": int64, which of them it is, and "rank/answer": string, the right label. Of choices
      also "rank/choices": int32, how many there are, and "rank/is_right": bool.

    Source: T5's `rank_classification`.
    """

    def expand(number: Any, example: Any) -> tf.data.Dataset:
        own = {**example, _EXAMPLE: number, _ANSWER: example["targets"]}
        rows = {"targets": list(verbalizers or ())}
        if verbalizers is None:
            choices = own.pop("answer_choices")
            own[_CHOICES] = tf.size(choices)
            is_right = tf.equal(choices, tf.strings.strip(example["targets"]))
            rows: Any = {"targets": choices, _RIGHT: is_right}
        return (
            tf.data.Dataset.from_tensor_slices(rows)  # pyright: ignore[reportArgumentType]
            .enumerate()
            .map(lambda index, row: {**own, **row, _CLASS: index})
        )

    def every_label(ds: tf.data.Dataset) -> tf.data.Dataset:
        numbered: Any = to_text(ds).enumerate()
        return numbered.flat_map(expand)

    rows_of_text = rows_function(to_text)
    if rows_of_text is None:
        return every_label

    def every_label_of_rows(rows: Rows) -> Rows:
        for number, example in enumerate(rows_of_text(rows)):
            answer = tf.get_static_value(tf.convert_to_tensor(example["targets"]))
            own = {**example, _EXAMPLE: np.int64(number), _ANSWER: answer}
            labels = [label.encode("utf-8") for label in verbalizers or ()]
            if verbalizers is None:
                labels = own.pop("answer_choices").tolist()
                own[_CHOICES] = np.int32(len(labels))
            for index, label in enumerate(labels):
                right = {_RIGHT: label == answer.strip()} if verbalizers is None else {}
                yield {**own, **right, "targets": label, _CLASS: np.int64(index)}

    return over_rows(every_label, every_label_of_rows)


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
            raise _none_is_whole(len(targets), len(verbalizers))
        best = [int(np.argmax([row[i] for i in sorted(row)])) for row in whole.values()]
        answers = [postprocess_fn(verbalizers[index]) for index in best]
        return metric_fn([values[n] for n in whole], answers)

    return metric


def _none_is_whole(num_rows: int, num_labels: int) -> DataError:
    """The error for an evaluation that stops before it has all labels of an example."""
    return DataError(
        "No example has a score for every label",
        got=f"{num_rows} rows",
        expected=f"at least {num_labels} rows, one a label",
        fix=f"set EVALUATOR_NUM_EXAMPLES to a multiple of {num_labels}",
    )


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
