"""A task of one's own from JSONL, TSV or CSV files: `from_files` in Python, `@tasks.from_files()` in gin."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import lines, postprocessors, ranking
from prompt_tuning.data.features import text_to_text_features
from prompt_tuning.data.metric_names import find_metrics
from prompt_tuning.data.own import record_files, templates
from prompt_tuning.data.own.templates import Template
from prompt_tuning.data.postprocessors import PostprocessFn
from prompt_tuning.data.preprocessors import UNLABELED, TextPreprocessor
from prompt_tuning.data.verbalizers import register_verbalizers
from prompt_tuning.errors import ConfigError, DataError

Paths = str | Sequence[str]


def from_files(
    name: str,
    *,
    inputs: str,
    targets: str,
    train: Paths | None = None,
    validation: Paths | None = None,
    test: Paths | None = None,
    label_map: Mapping[Any, str] | None = None,
    metrics: Sequence[Any] = ("accuracy",),
) -> str:
    """Registers a task that reads files of one's own; nothing is read before a dataset is built.

    With a `label_map` it also registers `{name}_rank`, for evaluation by `ranking` in place of decoding: the same task
    without its training split. Called again with the same name, it replaces what it registered before, as a
    notebook's cell that runs twice.

    Args:
      name: The task's name, also of the files and TensorBoard runs of its evaluation.
      inputs: Template of the input text, such as `question: {question} passage: {passage}`.
      targets: Template of the target text, such as `{answer}`; with a `label_map` one field and nothing else.
      train: Files of the split, `*.jsonl`, `*.tsv` or `*.csv`; None where there is no such split.
      validation: Files of the split.
      test: Files of the split; here the fields of `targets` may be absent, and the target is then `<unk>`, as in T5.
      label_map: Value in the file -> text that the model writes, for example {0: "negative", 1: "positive"}. Metrics
        then compare classes, numbered in this order. None: targets are free text.
      metrics: Names of metrics (see `metric_names`), or functions.

    Returns:
      `name`, which `MIXTURE_OR_TASK_NAME = @tasks.from_files()` binds.

    Raises:
      ConfigError: A name, template, label map or metric is wrong.
    """
    files = _check_files({"train": train, "validation": validation, "test": test})
    fmt = _make_format(inputs, targets, label_map)
    verbalizers = fmt.verbalizers or ()
    postprocess_fn = (
        postprocessors.label_index(verbalizers) if verbalizers else postprocessors.plain_text
    )
    task = _make_task(
        name,
        RecordFilesDataSource(files, fmt),
        to_text=fmt.to_text(),
        postprocess_fn=postprocess_fn,
        metric_fns=find_metrics(metrics, num_classes=len(verbalizers) or None),
    )
    evaluated = {split: paths for split, paths in files.items() if split != "train"}
    ranked = None
    # Without metrics of the user's own that want scores.
    metric_fns: Any = task.predict_metric_fns
    if verbalizers and evaluated and metric_fns:
        ranked = _make_task(
            f"{name}{ranking.SUFFIX}",
            RecordFilesDataSource(evaluated, fmt),
            **ranking.ranked(fmt.to_text(), postprocess_fn, metric_fns, verbalizers),
            has_cache=False,
        )
    _replace(f"{name}{ranking.SUFFIX}", ranked, verbalizers)
    _replace(name, task, verbalizers)
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

    def columns(self, records: Sequence[tuple[str, record_files.Record]], *, may_lack: bool) -> Any:
        """Returns {field: [n] text} of every field that is used, checked.

        Args:
          records: (`file:line`, record).
          may_lack: Whether targets may be absent; such fields are then empty, and `has_target` is 0.

        Raises:
          DataError: A field is missing or of the wrong type, or a label is outside the map.
        """
        columns: dict[str, list[Any]] = {field: [] for field in self._fields()}
        columns["has_target"] = []
        for where, record in records:
            lacks = may_lack and all(record.get(f) is None for f in self.targets.fields)
            columns["has_target"].append(not lacks)
            for field in self._fields():
                if lacks and field in self.targets.fields and field not in self.inputs.fields:
                    columns[field].append("")
                else:
                    columns[field].append(self._value(record, field, where=where))
        return columns

    def to_text(self) -> TextPreprocessor:
        """Returns the preprocessor from columns to {"inputs", "targets"}."""

        def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            target = self.targets.join(example)
            if self.labels is not None:
                values, texts = zip(*self.labels, strict=True)
                target = tf.gather(tf.constant(texts), tf.argmax(tf.constant(values) == target))
            target = tf.where(example["has_target"], target, UNLABELED)
            return {"inputs": self.inputs.join(example), "targets": target}

        return lambda ds: ds.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)

    def _fields(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.inputs.fields, *self.targets.fields)))

    def _value(self, record: record_files.Record, field: str, *, where: str) -> str:
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
                fix="correct the line, or add the label to the label_map",
                name=text,
                candidates=known,
            )
        return text


class RecordFilesDataSource(seqio.DataSource):
    """Reads the files of `from_files`, whole, when a dataset is built.

    Args:
      files: Paths of each split.
      fmt: What the records must hold.
    """

    def __init__(self, files: Mapping[str, tuple[str, ...]], fmt: RecordFormat):
        super().__init__(splits=tuple(files))
        self._files = dict(files)
        self._format = fmt

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a split lies in fixed files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of a split's files."""
        return list(self._files[split])

    def num_input_examples(self, split: str) -> int | None:
        """Returns the number of records of a split."""
        return len(self._columns(split)["has_target"])

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Returns the records of a split.

        Args:
          split: One of the splits with files.
          shuffle: Whether to permute the records.
          seed: Seed of that; the same seed gives the same order on every machine.
          shard_info: Which share of the records to return; all if None.
          sequence_length: Not used, as in SeqIO's own sources.
          use_cached: Not used.
          num_epochs: Not used.

        Returns:
          {field: string} of the fields that the templates name, and `has_target`: bool.

        Raises:
          DataError: A file is missing, empty or malformed.
        """
        del sequence_length, use_cached, num_epochs
        columns: Any = self._columns(split)
        if shuffle:
            order = np.random.default_rng(seed).permutation(len(columns["has_target"]))
            columns = {name: [column[i] for i in order] for name, column in columns.items()}
        ds = tf.data.Dataset.from_tensor_slices(columns)
        return ds.shard(shard_info.num_shards, shard_info.index) if shard_info else ds

    def _columns(self, split: str) -> Mapping[str, list[Any]]:
        """Returns the checked columns of a split, parsed once for as long as its files do not change."""
        stats = [(p, p.stat()) for p in map(epath.Path, self._files[split]) if p.is_file()]
        changed = tuple((str(path), stat.mtime, stat.length) for path, stat in stats)
        return _parse(self._files[split], self._format, split == "test", changed)

    def __repr__(self) -> str:
        return f"RecordFilesDataSource({self._files})"


@functools.lru_cache(maxsize=8)
def _parse(
    paths: tuple[str, ...], fmt: RecordFormat, may_lack: bool, changed: Any
) -> Mapping[str, list[Any]]:
    del changed  # It is part of the cache's key only.
    required = fmt.inputs.fields if may_lack else (*fmt.inputs.fields, *fmt.targets.fields)
    return fmt.columns(record_files.read_records(paths, required), may_lack=may_lack)


def _make_format(inputs: str, targets: str, label_map: Mapping[Any, str] | None) -> RecordFormat:
    """Returns the format of checked settings."""
    fmt = RecordFormat(
        templates.parse(inputs, name="inputs"), templates.parse(targets, name="targets"), None
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


def _check_files(files: Mapping[str, Paths | None]) -> dict[str, tuple[str, ...]]:
    """Returns the paths of each split that has some."""
    found: dict[str, tuple[str, ...]] = {}
    for split, paths in files.items():
        if paths is None:
            continue
        found[split] = (paths,) if isinstance(paths, str) else tuple(paths)
        wrong = [p for p in found[split] if not str(p).endswith(record_files.SUFFIXES)]
        if wrong or not found[split]:
            raise ConfigError(
                f"The files of {split} are not of a known form",
                got=wrong[0] if wrong else paths,
                expected=f"a path, or a list of paths, that end in {', '.join(record_files.SUFFIXES)}",
                fix=f"correct {split}, or give the file such a name",
            )
    if not found:
        raise ConfigError(
            "The task has no files",
            got=None,
            expected="a path for train, validation or test",
            fix="set train and validation",
        )
    return found


def _make_task(
    name: str,
    source: RecordFilesDataSource,
    *,
    to_text: TextPreprocessor,
    postprocess_fn: PostprocessFn,
    metric_fns: Sequence[Any],
    has_cache: bool = True,
) -> seqio.Task:
    """Returns a task that is not registered yet."""
    try:
        return seqio.Task(
            name,
            source=source,
            output_features=text_to_text_features(),
            preprocessors=[
                to_text,
                seqio.preprocessors.tokenize,
                *([seqio.CacheDatasetPlaceholder()] if has_cache else []),
                seqio.preprocessors.append_eos_after_trim,
            ],
            postprocess_fn=postprocess_fn,
            metric_fns=list(metric_fns),
        )
    except ValueError as error:
        raise ConfigError(
            f"The task cannot be registered ({error})",
            got=name,
            expected="a name of letters, digits, points and underscores",
            fix="choose such a name",
        ) from error


def _replace(name: str, task: seqio.Task | None, verbalizers: Sequence[str]) -> None:
    """Registers a task, if there is one; what `from_files` registered before under the name makes way."""
    is_mixture = name in seqio.MixtureRegistry.names()
    if is_mixture or name in seqio.TaskRegistry.names():
        taken = None if is_mixture else seqio.TaskRegistry.get(name)
        is_ours = taken is not None and isinstance(taken.source, RecordFilesDataSource)
        if task is not None and not is_ours:
            raise ConfigError(
                f"A {'mixture' if is_mixture else 'task'} of another module has this name",
                got=name,
                expected="a name of its own",
                fix="choose another name",
            )
        if is_ours:
            seqio.TaskRegistry.remove(name)
    if task is not None:
        seqio.TaskRegistry.add_provider(name, task)
        register_verbalizers(name, verbalizers)
