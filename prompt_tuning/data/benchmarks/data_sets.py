"""Data sets as text-to-text tasks: one row of a table describes one data set, and is registered in several forms."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from etils import epath

from prompt_tuning.data import metrics, postprocessors, preprocessors, ranking
from prompt_tuning.data.benchmarks.local_files import LocalFormat, OriginalFormat
from prompt_tuning.data.benchmarks.sources import LocalOrTfdsDataSource
from prompt_tuning.data.metric_names import find_metrics
from prompt_tuning.data.metrics import MetricFn
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.data.registry import register_task

SPLITS = ("train", "validation", "test")
EXAMPLES = "_examples"
TASKLESS = "taskless_"
TASK_INDEX = "task_index_"
# The authors' names of the same tasks for mT5 and ByT5; the vocabulary is the run's under any name.
MODELS = ("", "mt5_", "byt5_")
# What stands before the names of `register_forms`.
FORMS = tuple(f"{model}{form}" for model in MODELS for form in ("", TASKLESS, TASK_INDEX))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
      name: Short name, the start of TensorBoard tags: `boolq`.
      local: Layout of the original files.
      text: Makes the preprocessor for a first word of the input, or for none ("").
      probe: Raw examples, which tell whether a task of the same name writes the same text.
      prefix: T5's first word of the input; None stands for `name`.
      postprocess_fn: Makes values of decoded text.
      metric_fns: Compare these values.
      verbalizers: Text of each class, by class index; empty for free text.
      splits: The splits there are; a dict from our name of a split to the one of TensorFlow Datasets.
      example_fields: What of an example predictions show in TensorBoard.
      format_fn: Makes the text shown there.
      is_right: Says which predictions are shown as wrong.
      task_index: What `with_task_index` numbers the data set by; None where there is no such form.
    """

    name: str
    local: OriginalFormat
    text: Callable[[str], TextPreprocessor]
    probe: tuple[Mapping[str, Any], ...]
    prefix: str | None = None
    postprocess_fn: PostprocessFn = postprocessors.plain_text
    metric_fns: tuple[MetricFn, ...] = (metrics.accuracy,)
    verbalizers: tuple[str, ...] = ()
    splits: Sequence[str] | Mapping[str, str] = SPLITS
    example_fields: tuple[str, ...] = postprocessors.EXAMPLE_FIELDS
    format_fn: Callable[[Mapping[str, Any]], str] = metrics.format_classification
    is_right: Callable[[Any, Any], bool] = metrics.equal
    task_index: int | None = None


def classification(
    name: str,
    local: LocalFormat,
    verbalizers: tuple[str, ...] | None = None,
    *,
    fields: Sequence[str] | Mapping[str, str] | None = None,
    **changes: Any,
) -> DataSet:
    """Returns a data set whose examples have one of some labels.

    Args:
      name: Short name, and T5's first word where `prefix` does not say another.
      local: Layout of the original files.
      verbalizers: Text of each class, by class index; None for the classes' names in the files.
      fields: As `preprocessors.classification_text` takes them; None for those of `local`.
      **changes: Attributes of `DataSet` that differ from accuracy over three splits.
    """
    columns = local.fields if fields is None else fields
    verbalizers = local.classes if verbalizers is None else verbalizers

    def text(prefix: str) -> TextPreprocessor:
        return preprocessors.classification_text(
            fields=columns, verbalizers=verbalizers, prefix=prefix
        )

    attributes: dict[str, Any] = {
        "postprocess_fn": postprocessors.label_index(verbalizers),
        "verbalizers": verbalizers,
        "probe": tuple(
            {**{f: f" {f}  {label} " for f in local.fields}, "label": label, "idx": label + 1}
            for label in range(-1, len(verbalizers))
        ),
    }
    return DataSet(name, local, text, **{**attributes, **changes})


def read_table(path: epath.PathLike, *, suffix: str) -> dict[str, DataSet]:
    """Returns the data sets of a JSON file of rows, each with one of some labels.

    Args:
      path: The file. A row has `name`; of `LocalFormat` what is not its default (`stems` as an object); `written`, a
        dict from the name that is written to the column, where that is another; `metrics` by name (default: accuracy);
        and attributes of `DataSet`. Labels are written as the files have them.
      suffix: End of the original files' names.

    Returns:
      {name: data set} in the order of the rows.
    """
    of_files = {field.name for field in dataclasses.fields(LocalFormat)}
    found = {}
    for given in json.loads(epath.Path(path).read_text(encoding="utf-8")):
        stems = [(split, tuple(names)) for split, names in given.pop("stems", {}).items()]
        # A format is part of a cache's key, so that its lists must be tuples.
        row: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        written, names = row.pop("written", None), row.pop("metrics", ("accuracy",))
        layout = {key: row.pop(key) for key in of_files & row.keys()}
        local = LocalFormat(suffix=suffix, stems=tuple(stems), **layout)
        measured = tuple(find_metrics(names, num_classes=len(local.classes)))
        name = row.pop("name")
        found[name] = classification(name, local, fields=written, metric_fns=measured, **row)
    return found


def register_forms(data: DataSet, task_name: str, *, tfds_name: str) -> None:
    """Registers a data set under T5's name and those of prompt tuning.

    - `{task_name}`: T5's text, with the task's name in front.
    - `taskless_{task_name}`: without it.
    - `task_index_{task_name}`: without it, and with the data set's sentinel as the first id, where it has one.
    - `mt5_…` and `byt5_…` of these.
    - `…_examples` of all: evaluation also shows examples in TensorBoard.
    - `…_rank` of the first two, where there are labels: for evaluation by `ranking` in place of decoding.

    Args:
      data: The data set.
      task_name: T5's name for the task, for example `super_glue_boolq_v102`.
      tfds_name: Where TensorFlow Datasets keeps it.
    """
    prefix = data.name if data.prefix is None else data.prefix
    forms: list[tuple[str, str, int | None]] = []
    for model in MODELS:
        forms += [(model, prefix, None), (f"{model}{TASKLESS}", "", None)]
        if data.task_index is not None:
            forms.append((f"{model}{TASK_INDEX}", "", data.task_index))
    for form, first_word, task_index in forms:
        for suffix in ("", EXAMPLES):
            register(
                data,
                f"{form}{task_name}{suffix}",
                tfds_name=tfds_name,
                to_text=data.text(first_word),
                log_examples=bool(suffix),
                task_index=task_index,
            )
    if data.verbalizers and data.metric_fns:
        for form, first_word in (("", prefix), (TASKLESS, "")):
            register_ranked(
                data, f"{form}{task_name}", tfds_name=tfds_name, to_text=data.text(first_word)
            )


def register_ranked(
    data: DataSet, task_name: str, *, tfds_name: str, to_text: TextPreprocessor
) -> None:
    """Registers `{task_name}_rank`, which has the model score every label; it has no training split.

    Args:
      data: A data set with verbalizers.
      task_name: Full name of the task.
      tfds_name: Where TensorFlow Datasets keeps the data set.
      to_text: Makes `inputs` and `targets` text of raw examples.
    """
    splits = data.splits if isinstance(data.splits, Mapping) else {s: s for s in data.splits}
    evaluated = {ours: theirs for ours, theirs in splits.items() if ours != "train"}
    register_task(
        f"{task_name}{ranking.SUFFIX}",
        source=LocalOrTfdsDataSource(tfds_name=tfds_name, local=data.local, splits=evaluated),
        **ranking.ranked(to_text, data.postprocess_fn, data.metric_fns, data.verbalizers),
        probe=data.probe,
        verbalizers=data.verbalizers,
    )


def register(
    data: DataSet,
    task_name: str,
    *,
    tfds_name: str,
    to_text: TextPreprocessor,
    log_examples: bool = False,
    task_index: int | None = None,
) -> None:
    """Registers one task.

    Args:
      data: The data set.
      task_name: Full name of the task.
      tfds_name: Where TensorFlow Datasets keeps the data set.
      to_text: Makes `inputs` and `targets` text of raw examples.
      log_examples: Whether evaluation also shows examples in TensorBoard.
      task_index: Which sentinel to begin the input with, from 0; None for none.
    """
    postprocess_fn = data.postprocess_fn
    metric_fns = list(data.metric_fns)
    if log_examples:
        postprocess_fn = postprocessors.with_examples(postprocess_fn, data.example_fields)
        metric_fns = [metrics.on_values(fn) for fn in metric_fns]
        shown = metrics.sample_texts(data.name, format_fn=data.format_fn, is_right=data.is_right)
        # Tasks that T5 does not measure are not evaluated either.
        metric_fns += [shown] if metric_fns else []
    register_task(
        task_name,
        source=LocalOrTfdsDataSource(tfds_name=tfds_name, local=data.local, splits=data.splits),
        to_text=to_text,
        postprocess_fn=postprocess_fn,
        metric_fns=metric_fns,
        probe=data.probe,
        verbalizers=data.verbalizers,
        on_ids=() if task_index is None else (with_task_index(task_index),),
    )


def with_task_index(index: int) -> Callable[..., tf.data.Dataset]:
    """Returns a preprocessor that begins the input with the sentinel `<extra_id_{index}>`.

    Args:
      index: The task's number, from 0.

    Source: the authors' `task_index_…` tasks for prompts that several tasks share.
    """

    @preprocessors.of_each_example
    def prepend(ds: tf.data.Dataset, output_features: Any) -> tf.data.Dataset:
        vocabulary = output_features["inputs"].vocabulary
        return preprocessors.prepend_id(ds, "inputs", vocabulary.vocab_size - 1 - index)

    return prepend
