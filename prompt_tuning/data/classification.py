"""Classification data sets as text-to-text tasks: one row of a table describes one data set."""

import dataclasses
from typing import Any

import numpy as np

from prompt_tuning.data import metrics, postprocessors, preprocessors
from prompt_tuning.data.local_files import LocalFormat
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.data.registry import register_task
from prompt_tuning.data.sources import LocalOrTfdsDataSource
from prompt_tuning.data.verbalizers import register_verbalizers


@dataclasses.dataclass(frozen=True)
class Classification:
    """One classification data set.

    Attributes:
      name: Short name, also T5's prefix and the start of TensorBoard tags: `boolq`.
      local: Layout of the original files; its fields are the text columns.
      verbalizers: Text of each class, by class index.
      metric_fns: What is measured.
    """

    name: str
    local: LocalFormat
    verbalizers: tuple[str, ...]
    metric_fns: tuple[MetricFn, ...] = (metrics.accuracy,)


def register_forms(data: Classification, task_name: str, *, tfds_name: str) -> None:
    """Registers T5's form of a data set and the form without the task's name, each also with logged examples.

    Args:
      data: The data set.
      task_name: T5's name for the task, for example `super_glue_boolq_v102`. The others are `taskless_{task_name}`,
        and both again with the suffix `_examples`, which shows examples in TensorBoard.
      tfds_name: Where TensorFlow Datasets keeps it.
    """
    for form, prefix in (("", data.name), ("taskless_", "")):
        to_text = preprocessors.classification_text(
            fields=data.local.fields, verbalizers=data.verbalizers, prefix=prefix
        )
        for suffix in ("", "_examples"):
            register_classification(
                data,
                f"{form}{task_name}{suffix}",
                tfds_name=tfds_name,
                to_text=to_text,
                log_examples=bool(suffix),
            )


def register_classification(
    data: Classification,
    task_name: str,
    *,
    tfds_name: str,
    to_text: TextPreprocessor,
    log_examples: bool = False,
) -> None:
    """Registers one task.

    Args:
      data: The data set.
      task_name: Full name of the task.
      tfds_name: Where TensorFlow Datasets keeps the data set.
      to_text: Makes `inputs` and `targets` text of raw examples.
      log_examples: Whether evaluation also shows examples in TensorBoard.
    """
    postprocess_fn = postprocessors.label_index(data.verbalizers)
    metric_fns = list(data.metric_fns)
    if log_examples:
        postprocess_fn = postprocessors.with_examples(postprocess_fn)
        metric_fns = [metrics.on_values(fn) for fn in metric_fns]
        metric_fns.append(metrics.sample_texts(data.name))
    register_task(
        task_name,
        source=LocalOrTfdsDataSource(tfds_name=tfds_name, local=data.local),
        to_text=to_text,
        postprocess_fn=postprocess_fn,
        metric_fns=metric_fns,
        probe=_probe(data),
    )
    register_verbalizers(task_name, data.verbalizers)


def _probe(data: Classification) -> dict[str, Any]:
    """Returns one raw example per class and one without label, as columns."""
    labels = [-1, *range(len(data.verbalizers))]
    columns: dict[str, Any] = {
        field: [f" {field}  {label} " for label in labels] for field in data.local.fields
    }
    columns["label"] = np.array(labels, np.int64)
    columns["idx"] = np.arange(len(labels), dtype=np.int32)
    return columns
