"""Metrics of T5's evaluation, in percent, over post-processed targets and predictions."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio

MetricFn = Callable[[Sequence[Any], Sequence[Any]], dict[str, Any]]


def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """Returns the share of predictions that equal their target, in percent.

    Args:
      targets: One value per example.
      predictions: One value per example.
    """
    equal = [target == prediction for target, prediction in zip(targets, predictions, strict=True)]
    return {"accuracy": 100.0 * sum(equal) / len(equal)}


def mean_multiclass_f1(num_classes: int) -> MetricFn:
    """Returns the metric `mean_{n}class_f1`: the unweighted mean over classes of F1, in percent.

    A class that occurs in neither targets nor predictions counts as 0, and a prediction outside the classes (-1) is
    wrong without being a false positive of any class.

    Args:
      num_classes: Class indices are 0 … num_classes - 1.
    """

    def metric(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
        target, predicted = np.asarray(targets), np.asarray(predictions)
        scores = []
        for label in range(num_classes):
            hits = np.sum((target == label) & (predicted == label))
            total = np.sum(target == label) + np.sum(predicted == label)
            scores.append(2.0 * hits / total if total else 0.0)
        return {f"mean_{num_classes}class_f1": 100.0 * float(np.mean(scores))}

    return metric


def on_values(metric_fn: MetricFn) -> MetricFn:
    """Returns `metric_fn` for predictions made by `postprocessors.with_examples`."""

    def metric(targets: Sequence[Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return metric_fn(targets, [prediction["prediction"] for prediction in predictions])

    return metric


def sample_texts(name: str, *, num_examples: int = 8, seed: int = 0) -> MetricFn:
    """Returns a metric that shows examples in TensorBoard: a sample of all, and one of those that are wrong.

    The same positions are drawn at every evaluation, so that one can watch an example change.

    Args:
      name: Start of the tags `{name} samples` and `{name} negative samples`.
      num_examples: Examples per text.
      seed: Seed of the draw.
    """

    def metric(
        targets: Sequence[Any], predictions: Sequence[Mapping[str, Any]]
    ) -> dict[str, seqio.metrics.Text]:
        wrong = [p for t, p in zip(targets, predictions, strict=True) if p["prediction"] != t]
        return {
            f"{name} samples": seqio.metrics.Text(_sample(predictions, num_examples, seed)),
            f"{name} negative samples": seqio.metrics.Text(_sample(wrong, num_examples, seed)),
        }

    return metric


def _sample(predictions: Sequence[Mapping[str, Any]], num_examples: int, seed: int) -> str:
    """Returns a Markdown list of up to `num_examples` examples, in order of position."""
    count = min(num_examples, len(predictions))
    positions = sorted(random.Random(seed).sample(range(len(predictions)), count))
    return "\n\n".join(
        f"example: {predictions[i]['inputs_pretokenized']}\n\n"
        f"target: {predictions[i]['targets_pretokenized']}\n\n"
        f"prediction: {predictions[i]['prediction_pretokenized']}"
        for i in positions
    )
