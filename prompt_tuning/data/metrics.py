"""Metrics of T5's evaluation, in percent, over post-processed targets and predictions."""

import random
import warnings
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


def binary_f1(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Returns F1 of class 1, in percent; 0 where neither targets nor predictions hold it.

    A prediction outside the two classes (-1) counts as the class that its target is not.

    Args:
      targets: Class index 0 or 1 of each example.
      predictions: Class index of each example, or anything else where the text was no label.

    Raises:
      ValueError: A target is another class, as in a split without labels.

    Source: T5's metric of MRPC and QQP.
    """
    target, predicted = np.asarray(targets), np.asarray(predictions)
    if not np.isin(target, (0, 1)).all():
        raise ValueError(f"F1 compares the classes 0 and 1, but targets hold {set(targets)}")
    predicted = np.where((predicted == 0) | (predicted == 1), predicted, 1 - target)
    hits = np.sum((target == 1) & (predicted == 1))
    total = np.sum(target == 1) + np.sum(predicted == 1)
    return {"f1": float(200.0 * hits / total) if total else 0.0}


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


def matthews_corrcoef(targets: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Returns Matthews' correlation, in percent (CoLA); 0 where targets or predictions are all the same.

    A prediction outside the classes (-1) is a class of its own.

    Args:
      targets: Class index of each example.
      predictions: The same.

    Source: the multi-class form of Gorodkin 2004, as T5 computes it.
    """
    target, predicted = np.asarray(targets), np.asarray(predictions)
    labels = np.union1d(target, predicted)
    count = float(len(target))
    hits = float(np.sum(target == predicted))
    per_target = np.array([np.sum(target == label) for label in labels], np.float64)
    per_prediction = np.array([np.sum(predicted == label) for label in labels], np.float64)
    spread = (count**2 - per_target @ per_target) * (count**2 - per_prediction @ per_prediction)
    if spread == 0.0:
        return {"matthews_corrcoef": 0.0}
    covariance = hits * count - per_target @ per_prediction
    return {"matthews_corrcoef": 100.0 * float(covariance / np.sqrt(spread))}


def pearson_corrcoef(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Returns Pearson's correlation, in percent (STS-B); NaN where targets or predictions are all the same.

    Args:
      targets: One number per example, at least two.
      predictions: The same.

    Raises:
      ValueError: There are fewer than two examples.
    """
    return {"pearson_corrcoef": _correlation("pearsonr", targets, predictions)}


def spearman_corrcoef(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Returns Spearman's rank correlation, in percent (STS-B); NaN where targets or predictions are all the same.

    Args:
      targets: One number per example.
      predictions: The same.
    """
    return {"spearman_corrcoef": _correlation("spearmanr", targets, predictions)}


def _correlation(function: str, targets: Sequence[float], predictions: Sequence[float]) -> float:
    """Returns a correlation of SciPy's, as T5 uses them, in percent."""
    # Most runs have no such task, and this takes a second to import.
    from scipy import stats

    with warnings.catch_warnings():
        # NaN says as much.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return 100.0 * float(getattr(stats, function)(targets, predictions).statistic)


def on_values(metric_fn: MetricFn) -> MetricFn:
    """Returns `metric_fn` for predictions made by `postprocessors.with_examples`."""

    def metric(targets: Sequence[Any], predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return metric_fn(targets, [prediction["prediction"] for prediction in predictions])

    return metric


def equal(target: Any, prediction: Any) -> bool:
    """Returns whether a value is that of its target."""
    return bool(target == prediction)


def format_classification(prediction: Mapping[str, Any]) -> str:
    """Returns an input with its target and prediction, for TensorBoard.

    Args:
      prediction: From `postprocessors.with_examples`.
    """
    return (
        f"example: {prediction['inputs_pretokenized']}\n\n"
        f"target: {prediction['targets_pretokenized']}\n\n"
        f"prediction: {prediction['prediction_pretokenized']}"
    )


def sample_texts(
    name: str,
    *,
    num_examples: int = 8,
    seed: int = 0,
    format_fn: Callable[[Mapping[str, Any]], str] = format_classification,
    is_right: Callable[[Any, Any], bool] = equal,
) -> MetricFn:
    """Returns a metric that shows examples in TensorBoard: a sample of all, and one of those that are wrong.

    The same positions are drawn at every evaluation, so that one can watch an example change.

    Args:
      name: Start of the tags `{name} samples` and `{name} negative samples`.
      num_examples: Examples per text.
      seed: Seed of the draw.
      format_fn: Makes the text of an example.
      is_right: Says of a target and the value of a prediction whether it is right.
    """

    def sample(predictions: Sequence[Mapping[str, Any]]) -> seqio.metrics.Text:
        count = min(num_examples, len(predictions))
        positions = sorted(random.Random(seed).sample(range(len(predictions)), count))
        return seqio.metrics.Text("\n\n".join(format_fn(predictions[i]) for i in positions))

    def metric(
        targets: Sequence[Any], predictions: Sequence[Mapping[str, Any]]
    ) -> dict[str, seqio.metrics.Text]:
        pairs = zip(targets, predictions, strict=True)
        wrong = [p for t, p in pairs if not is_right(t, p["prediction"])]
        return {f"{name} samples": sample(predictions), f"{name} negative samples": sample(wrong)}

    return metric
