"""Metrics over answers in free text and over answers in groups, in percent."""

import collections
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.metrics import MetricFn, binary_f1

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Returns an answer as SQuAD compares it: small letters, no ASCII punctuation, no articles, single spaces.

    Args:
      text: The answer.

    Source: SQuAD's official evaluation.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad(targets: Sequence[Sequence[str]], predictions: Sequence[str]) -> dict[str, float]:
    """Returns exact match `em` and word overlap `f1`, the better of all right answers, in percent.

    Two answers without words match exactly but overlap nowhere, as in T5.

    Args:
      targets: Right answers of each question, at least one.
      predictions: One answer per question.

    Raises:
      ValueError: There are not as many predictions as targets, or a question has no right answer.
    """
    exact, overlap = [], []
    for answers, prediction in zip(targets, predictions, strict=True):
        said = normalize_answer(prediction)
        right = [normalize_answer(answer) for answer in answers]
        exact.append(max(answer == said for answer in right))
        overlap.append(max(_word_f1(answer, said) for answer in right))
    return {"em": 100.0 * float(np.mean(exact)), "f1": 100.0 * float(np.mean(overlap))}


def _word_f1(target: str, prediction: str) -> float:
    """Returns F1 of the words of two normalised texts, each word as often as it occurs."""
    right, said = target.split(), prediction.split()
    hits = sum((collections.Counter(right) & collections.Counter(said)).values())
    return 2.0 * hits / (len(right) + len(said)) if hits else 0.0


def first_of_group(metric_fn: MetricFn) -> MetricFn:
    """Returns a metric that counts the first example of each group only (ReCoRD).

    Args:
      metric_fn: Compares the values.

    Returns:
      A function of targets {"value", "group"} and predictions {"value"}.
    """

    def metric(
        targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        first: dict[Any, tuple[Any, Any]] = {}
        for target, prediction in zip(targets, predictions, strict=True):
            first.setdefault(target["group"], (target["value"], prediction["value"]))
        return metric_fn([t for t, _ in first.values()], [p for _, p in first.values()])

    return metric


def f1_over_answers(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns `f1` of class 1 over all answers to all questions, in percent (MultiRC).

    Args:
      targets: {"value": class index} of each answer.
      predictions: The same.
    """
    return binary_f1([t["value"] for t in targets], [p["value"] for p in predictions])


def exact_groups(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns `exact_match`: the share of questions whose answers are all judged right, in percent (MultiRC).

    Args:
      targets: {"value": class index, "group": question} of each answer.
      predictions: {"value": class index}.
    """
    right: dict[Any, bool] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        group = target["group"]
        right[group] = right.get(group, True) and target["value"] == prediction["value"]
    return {"exact_match": 100.0 * float(np.mean(list(right.values())))}


def is_right(target: Any, prediction: Any) -> bool:
    """Returns whether a value counts as right, of every kind that the postprocessors make.

    Args:
      target: A value, a list of right answers, or either of them under "value".
      prediction: A value or text, or either of them under "value".
    """
    if isinstance(target, Mapping):
        target, prediction = target["value"], prediction["value"]
    if isinstance(target, list):
        return normalize_answer(prediction) in map(normalize_answer, target)
    return bool(target == prediction)


def format_answers(prediction: Mapping[str, Any]) -> str:
    """Returns a question with its text, answers and prediction, for TensorBoard.

    Args:
      prediction: From `postprocessors.with_examples`, with `context`, `question` and `answers`.
    """
    answers = "; ".join(sorted(set(prediction["answers"] or ())))
    return (
        f"context: {prediction['context']}\n\nquestion: {prediction['question']}\n\n"
        f"answers: {answers}\n\nprediction: {prediction['prediction_pretokenized']}"
    )
