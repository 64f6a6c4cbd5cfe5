"""Metrics by the names that a configuration writes."""

from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.data import answer_metrics, metrics, text_metrics
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.errors import ConfigError


def _of_two_classes(name: str, metric_fn: MetricFn) -> Callable[[int | None], MetricFn]:
    """A metric of the second of two classes."""

    def find(num_classes: int | None) -> MetricFn:
        if num_classes != 2:
            raise ConfigError(
                f"The metric {name!r} compares two classes",
                got=f"{num_classes} classes" if num_classes else "no label map",
                expected="a label_map with two labels, of which the second counts as positive",
                fix="write 'mean_multiclass_f1' for more classes, or 'squad' for text",
            )
        return metric_fn

    return find


def _mean_multiclass_f1(num_classes: int | None) -> MetricFn:
    """The mean over classes of F1."""
    if num_classes is None:
        raise ConfigError(
            "The metric 'mean_multiclass_f1' compares classes",
            got="no label map",
            expected="a label_map",
            fix="add a label_map, or write 'squad' for text",
        )
    return metrics.mean_multiclass_f1(num_classes)


def _squad(num_classes: int | None) -> MetricFn:
    """Exact match and word overlap of one right answer a question."""
    if num_classes is not None:
        raise ConfigError(
            "The metric 'squad' compares text",
            got="a label_map",
            expected="targets in free text",
            fix="write 'accuracy', or leave label_map out",
        )

    def metric(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
        return answer_metrics.squad([[target] for target in targets], predictions)

    return metric


def _of_numbers(name: str, metric_fn: MetricFn) -> Callable[[int | None], MetricFn]:
    """A metric of classes whose order means something, or of numbers in text."""

    def find(num_classes: int | None) -> MetricFn:
        if num_classes is None:
            raise ConfigError(
                f"The metric {name!r} compares numbers",
                got="no label map",
                expected="a label_map, whose classes are in order",
                fix="add a label_map, or write 'squad' for text",
            )
        return metric_fn

    return find


# Name -> the metric for a number of classes; None where targets are free text.
_BY_NAME: dict[str, Callable[[int | None], MetricFn]] = {
    "accuracy": lambda _: metrics.accuracy,
    "bleu": lambda _: text_metrics.bleu,
    "f1": _of_two_classes("f1", metrics.binary_f1),
    "matthews_corrcoef": _of_two_classes("matthews_corrcoef", metrics.matthews_corrcoef),
    "mean_multiclass_f1": _mean_multiclass_f1,
    "pearson_corrcoef": _of_numbers("pearson_corrcoef", metrics.pearson_corrcoef),
    "rouge": lambda _: text_metrics.rouge,
    "spearman_corrcoef": _of_numbers("spearman_corrcoef", metrics.spearman_corrcoef),
    "squad": _squad,
}
# Those that compare text, whatever the classes of a task; and those that are of classes alone.
TEXT_METRICS = frozenset({"bleu", "rouge", "squad"})
CLASS_METRICS = frozenset(_BY_NAME) - TEXT_METRICS - {"accuracy"}


def find_metrics(names: Sequence[str], *, num_classes: int | None) -> list[MetricFn]:
    """Returns the metrics with these names.

    Args:
      names: For example `["accuracy", "f1"]`. A function `(targets, predictions) -> {name: value}` stands for itself.
      num_classes: Classes of the label map; None where targets are free text.

    Raises:
      ConfigError: A name is unknown, or is not for this kind of target.
    """
    found: list[MetricFn] = []
    for name in [names] if isinstance(names, str) else names:
        if callable(name):
            found.append(name)
            continue
        if name not in _BY_NAME:
            raise ConfigError(
                "Unknown metric",
                got=name,
                expected=f"one of {', '.join(_BY_NAME)}, or a function (targets, predictions) -> dict",
                fix="correct the name",
                name=str(name),
                candidates=_BY_NAME,
            )
        found.append(_BY_NAME[name](num_classes))
    return found
