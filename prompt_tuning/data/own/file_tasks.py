"""A task of one's own from JSONL, TSV or CSV files: `from_files` in Python, `@tasks.from_files()` in gin."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from etils import epath

from prompt_tuning.data import columns, lines, postprocessors, ranking, records
from prompt_tuning.data.columns import Columns
from prompt_tuning.data.metric_names import find_metrics
from prompt_tuning.data.own import template_tasks
from prompt_tuning.data.own import templates as of_fields
from prompt_tuning.data.own.templates import Template
from prompt_tuning.data.preprocessors import UNLABELED, TextPreprocessor, mapped
from prompt_tuning.data.records import Record
from prompt_tuning.data.registry import make_task, replace_task
from prompt_tuning.data.sources import RecordFilesDataSource, files_by_split
from prompt_tuning.errors import ConfigError, DataError

Paths = str | Sequence[str]
# A label that is withheld, as an empty cell and as TensorFlow Datasets write it; null and no field are others.
_WITHHELD = ("", "-1")


def from_files(
    name: str,
    *,
    inputs: str | None = None,
    targets: str | None = None,
    templates: str | None = None,
    train: Paths | None = None,
    validation: Paths | None = None,
    test: Paths | None = None,
    label_map: Mapping[Any, str] | None = None,
    metrics: Sequence[Any] | None = None,
) -> str:
    """Registers a task that reads files of one's own; nothing is read before a dataset is built.

    With a `label_map` it also registers `{name}_rank`, for evaluation by `ranking` in place of decoding: the same task
    without its training split. Called again with the same name, it replaces what it registered before, as a
    notebook's cell that runs twice.

    Args:
      name: The task's name, also of the files and TensorBoard runs of its evaluation.
      inputs: Template of the input text, such as `question: {question} passage: {passage}`.
      targets: Template of the target text, such as `{answer}`; with a `label_map` one field and nothing else.
      templates: In place of `inputs` and `targets` a YAML file of Jinja templates (see `templates.read`); each becomes
        a task `{name}_{template}`, and `name` is their mixture (see `template_tasks.register`).
      train: Files of the split, `*.jsonl`, `*.json`, `*.tsv` or `*.csv`; None where there is no such split.
      validation: Files of the split.
      test: Files of the split; here the fields of `targets` may be absent, null or empty, a label also -1, and the
        target is then `<unk>`, as in T5.
      label_map: Value in the file -> text that the model writes, for example {0: "negative", 1: "positive"}. Metrics
        then compare classes, numbered in this order. None: targets are free text.
      metrics: Names of metrics (see `metric_names`), or functions; None: accuracy, or those of each of `templates`.

    Returns:
      `name`, which `MIXTURE_OR_TASK_NAME = @tasks.from_files()` binds.

    Raises:
      ConfigError: A name, template, label map or metric is wrong.
    """
    files = files_by_split({"train": train, "validation": validation, "test": test})
    paths = [path for paths in files.values() for path in paths]
    wrong = [path for path in paths if records.suffix(epath.Path(path)) not in records.SUFFIXES]
    if wrong:
        raise ConfigError(
            "A file is not of a known form",
            got=wrong[0],
            expected=f"a path that ends in {', '.join(records.SUFFIXES)}, or in these and .gz",
            fix="correct the path, or give the file such a name",
        )
    if templates is not None:
        _check_alone(inputs=inputs, targets=targets, label_map=label_map)
        template_tasks.register(name, files, templates, metrics)
        return name
    fmt = _make_format(inputs, targets, label_map)
    verbalizers = fmt.verbalizers or ()
    postprocess_fn = (
        postprocessors.label_index(verbalizers) if verbalizers else postprocessors.plain_text
    )
    task = make_task(
        name,
        source=RecordFilesDataSource(files, fmt),
        to_text=fmt.to_text(),
        postprocess_fn=postprocess_fn,
        metric_fns=find_metrics(
            ("accuracy",) if metrics is None else metrics, num_classes=len(verbalizers) or None
        ),
    )
    evaluated = {split: paths for split, paths in files.items() if split != "train"}
    ranked = None
    # Without metrics of the user's own that want scores.
    metric_fns: Any = task.predict_metric_fns
    if verbalizers and evaluated and metric_fns:
        ranked = make_task(
            f"{name}{ranking.SUFFIX}",
            source=RecordFilesDataSource(evaluated, fmt),
            **ranking.ranked(fmt.to_text(), postprocess_fn, metric_fns, verbalizers),
        )
    replace_task(f"{name}{ranking.SUFFIX}", ranked, verbalizers)
    replace_task(name, task, verbalizers)
    return name


@dataclasses.dataclass(frozen=True)
class RecordFormat:
    """What is made of a record.

    Attributes:
      inputs: Template of the input.
      targets: Template of the target.
      labels: Value in the file, as text -> verbalizer; None for free text.
    """

    inputs: Template
    targets: Template
    labels: tuple[tuple[str, str], ...] | None

    @property
    def verbalizers(self) -> tuple[str, ...] | None:
        """Text of each class by class index, None for free text."""
        if self.labels is None:
            return None
        return tuple(dict.fromkeys(text for _, text in self.labels))

    def read(self, paths: Sequence[str], split: str) -> Columns:
        """Returns {field: text} of every field that is used, checked, and whether there is a target (`has_target`).

        Args:
          paths: Files of a split.
          split: Their split; in `test` targets may be absent, and such fields are then empty.

        Raises:
          DataError: A field is missing or of the wrong type, a label is outside the map, or two records have the same
            `id` (or `idx`).
        """
        may_lack = split == "test"
        required = self.inputs.fields if may_lack else self._fields()
        found = [
            item
            for path in paths
            for item in records.read_records(epath.Path(path), required, optional=self._fields())
        ]
        records.check_id_fields(found)
        # An empty text may be the right answer to a question, unless all are.
        blanks = self.labels is not None or all(self._lacks(r, blanks=True) for _, r in found)
        return columns.from_rows(
            [self._row(r, may_lack and self._lacks(r, blanks=blanks), where) for where, r in found]
        )

    def _lacks(self, record: Record, *, blanks: bool) -> bool:
        """Returns whether the target of a record is withheld; `blanks`: also by an empty text, or by a label of -1."""
        known = [value for value, _ in self.labels or ()]
        marks = [mark for mark in _WITHHELD[: None if known else 1] if blanks and mark not in known]
        values = [record.get(field) for field in self.targets.fields]
        return all(value is None or str(value).strip() in marks for value in values)

    def _row(self, record: Record, lacks: bool, where: str) -> dict[str, str | bool]:
        """Returns what is used of a record; `lacks`: without its target."""
        row: dict[str, str | bool] = {"has_target": not lacks}
        for field in self._fields():
            is_absent = lacks and field in self.targets.fields and field not in self.inputs.fields
            row[field] = "" if is_absent else self._value(record, field, where=where)
        return row

    def to_text(self) -> TextPreprocessor:
        """Returns the preprocessor from columns to {"inputs", "targets"}."""

        def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            target = self.targets.join(example)
            if self.labels is not None:
                values, texts = zip(*self.labels, strict=True)
                target = tf.gather(tf.constant(texts), tf.argmax(tf.constant(values) == target))
            target = tf.where(example["has_target"], target, UNLABELED)
            return {"inputs": self.inputs.join(example), "targets": target}

        return mapped(to_text)

    def _fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.inputs.fields, *self.targets.fields)))

    def _value(self, record: Record, field: str, *, where: str) -> str:
        """Returns one checked value as text."""
        if field not in record:
            raise DataError(
                f"{where} has no field {field!r}",
                got=", ".join(map(str, record)),
                expected=f"the fields {', '.join(self._fields())}",
                fix="add the field to this line, or correct the template",
                name=field,
                candidates=[str(name) for name in record],
            )
        value = record[field]
        if self.labels is None or field not in self.targets.fields:
            return lines.check_text(value, field, where=where)
        known = [label for label, _ in self.labels]
        text = str(value) if isinstance(value, str | int) else None
        if text not in known:
            raise DataError(
                f"{where} has a label outside the label_map",
                got=value,
                expected=f"one of {', '.join(map(repr, known))} in {field!r}",
                fix="remove the line: only `test` may hold withheld labels"
                if self._lacks(record, blanks=True)
                else "correct the line, or add the label to the label_map",
                name=text,
                candidates=known,
            )
        return text


def _check_alone(**settings: Any) -> None:
    """Raises ConfigError if a setting is there that `templates` says better."""
    for name, value in settings.items():
        if value is not None:
            raise ConfigError(
                f"tasks.from_files.{name} is set beside tasks.from_files.templates",
                got=value,
                expected="one of the two: the templates write inputs, targets and answer choices",
                fix=f"remove tasks.from_files.{name}, or tasks.from_files.templates",
            )


def _make_format(
    inputs: str | None, targets: str | None, label_map: Mapping[Any, str] | None
) -> RecordFormat:
    """Returns the format of checked settings."""
    fmt = RecordFormat(
        of_fields.parse(inputs, name="inputs"), of_fields.parse(targets, name="targets"), None
    )
    if "has_target" in (*fmt.inputs.fields, *fmt.targets.fields):
        raise ConfigError(
            "A field has a name that is taken",
            got="has_target",
            expected="another name",
            fix="rename the field in the files and the template",
        )
    if label_map is None:
        return fmt
    expected = 'a dict from values in the file to text, like {0: "negative", 1: "positive"}'
    if not isinstance(label_map, Mapping) or not all(
        isinstance(k, str | int) and isinstance(v, str) and v for k, v in label_map.items()
    ):
        raise ConfigError(
            "label_map is wrong", got=label_map, expected=expected, fix="correct label_map"
        )
    labels = tuple((str(value), text) for value, text in label_map.items())
    if len(dict(labels)) != len(labels) or len({text for _, text in labels}) < 2:
        raise ConfigError(
            "label_map has a label twice, or fewer than two texts",
            got=dict(label_map),
            expected=expected,
            fix="correct label_map",
        )
    if targets != f"{{{fmt.targets.fields[0]}}}":
        raise ConfigError(
            "targets is more than the label's field",
            got=targets,
            expected=f"'{{{fmt.targets.fields[0]}}}', whose text is in label_map",
            fix="put the text into label_map, or leave label_map out",
        )
    return dataclasses.replace(fmt, labels=labels)
