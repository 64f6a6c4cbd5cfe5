"""The original files of SuperGLUE (JSONL) and GLUE (TSV), read into the columns that TensorFlow Datasets has."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data import columns, lines, records
from prompt_tuning.data.columns import Columns
from prompt_tuning.errors import DataError

# File names without suffix that the releases use for each split, in the order in which they are looked for.
SPLIT_STEMS = {
    "train": ("train",),
    "validation": ("val", "validation", "dev"),
    "test": ("test",),
}
UNKNOWN_LABEL = -1
# What tells examples apart, as the data sets name it.
ID_COLUMNS = ("idx", "id", "qid")
# Labels that are numbers are similarities from 0 to this (STS-B).
MAX_SCORE = 5.0
_MAX_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class OriginalFormat:
    """How one data set lies on disk: `LocalFormat`, or `nested_files.NestedFormat`.

    Attributes:
      folder: Folder below `data_dir`, for example `BoolQ`.
      suffix: End of the files' names.
      stems: (split, file names without suffix) of the splits whose files are not named as in `SPLIT_STEMS`.
      label_column: What the files call the label.
    """

    folder: str
    suffix: str
    stems: tuple[tuple[str, tuple[str, ...]], ...] = dataclasses.field(default=(), kw_only=True)
    label_column: str = dataclasses.field(default="label", kw_only=True)

    def read(self, paths: Sequence[str], split: str) -> Columns:
        """Reads the files of a split.

        Args:
          paths: Files of the format's suffix.
          split: Their split; only one whose name starts with `test` may lack labels and answers.

        Returns:
          The columns of `rows`.

        Raises:
          DataError: A line is malformed (named by file and line), lacks its label, or repeats an index, or there is no
            example.
        """
        rows = [row for path in paths for row in self.rows(epath.Path(path))]
        if not rows:
            raise DataError(
                "The file holds no example",
                got=", ".join(paths),
                expected="a file with at least one example",
                fix="put examples into the file or choose another split",
            )
        if not split.startswith("test"):
            for where, row in rows:
                _check_labelled(row, split, self.label_column, where=where)
        name = next((name for name in ID_COLUMNS if name in rows[0][1]), None)
        if name is not None:
            records.check_ids(name, ((where, row[name]) for where, row in rows))
        return columns.from_rows([row for _, row in rows])

    def rows(self, path: epath.Path) -> Iterable[tuple[str, dict[str, Any]]]:
        """Returns (`file:line`, example as TensorFlow Datasets would hold it) of a file's examples."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LocalFormat(OriginalFormat):
    """How a data set of one example a line lies on disk, in `.jsonl` or `.tsv`.

    Attributes:
      fields: Text columns, as TensorFlow Datasets names them.
      classes: Name of each class as the files write it, by class index. JSON booleans are the indices 0 and 1. Empty
        where labels are numbers.
      columns: What the files call each of `fields`; empty where that is the same.
      header: Names of the columns of a TSV file that may have none itself.
      skips_ragged: Whether rows with too few cells are left out, as TensorFlow Datasets does, or refused.
    """

    fields: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    skips_ragged: bool = False

    def rows(self, path: epath.Path) -> Iterable[tuple[str, dict[str, Any]]]:
        """Returns the examples of a file.

        Each has its text `fields`, `label` (-1 where withheld) and `idx` (the file's own, else the position).
        """
        names = self.columns or self.fields
        found = records.read_records(
            path,
            names,
            optional=(self.label_column, "idx", "index"),
            header=self.header,
            skips_ragged=self.skips_ragged,
        )
        for position, (where, record) in enumerate(found):
            row: dict[str, Any] = {
                field: text_of(record, name, where=where)
                for field, name in zip(self.fields, names, strict=True)
            }
            row["label"] = to_label(record.get(self.label_column), self.classes, where=where)
            index = next((name for name in ("idx", "index") if name in record), None)
            row["idx"] = position if index is None else to_index(record[index], index, where=where)
            yield where, row


def find_split(data_dir: str, fmt: OriginalFormat, split: str) -> epath.Path:
    """Returns the file of a split.

    Args:
      data_dir: Folder that holds `fmt.folder`.
      fmt: The data set's layout.
      split: `train`, `validation` or `test`.

    Raises:
      DataError: The data set's folder or the split's file is missing.
    """
    folder = epath.Path(data_dir) / fmt.folder
    if not folder.is_dir():
        raise DataError(
            f"data_dir has no folder {fmt.folder!r}",
            got=str(folder),
            expected=f"a folder with the original {fmt.suffix} files of {fmt.folder}",
            fix="put the files there, name another data_dir, or leave data_dir out to use TensorFlow Datasets",
        )
    stems = dict(fmt.stems).get(split) or SPLIT_STEMS.get(split, (split,))
    candidates = [folder / f"{stem}{fmt.suffix}" for stem in stems]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"Split {split!r} of {fmt.folder} is empty: its file is missing",
        got=str(candidates[0]),
        expected=f"one of {', '.join(path.name for path in candidates)} in {folder}",
        fix="put the file there or choose a split that exists",
    )


def _check_labelled(row: Mapping[str, Any], split: str, label: str, *, where: str) -> None:
    """Raises DataError if an example has neither label nor answers."""
    if row.get("label") == UNKNOWN_LABEL:
        raise DataError(
            f"{where} has no label",
            got=f"{label!r} absent, null or {UNKNOWN_LABEL}",
            expected=f"a label in {label!r}, as only a test split may lack",
            fix=f"add {label!r} to every example of split {split!r}, or remove those without",
        )
    if row.get("answers") == []:
        raise DataError(
            f"{where} has a question without answers",
            got=row.get("idx"),
            expected="at least one answer, as only a test split may lack",
            fix=f"add 'answers' to every question of split {split!r}, or remove those without",
        )


def to_index(value: Any, name: str, *, where: str) -> int:
    """Returns a number that counts examples, or words of a text.

    Args:
      value: An integer, or the text of one.
      name: The field that holds it.
      where: `file:line`, for the error.

    Raises:
      DataError: It is none, negative, or more than 32 bits hold.
    """
    number = -1 if isinstance(value, bool) else _to_integer(value)
    if number is None or not 0 <= number <= _MAX_INT32:
        raise DataError(
            f"{where} has no whole number in {name!r}",
            got=lines.shorten(value) if isinstance(value, str) else value,
            expected=f"0 to {_MAX_INT32}",
            fix=f"correct {name!r}, or number the examples anew",
        )
    return number


def _to_integer(value: Any) -> int | None:
    """Returns an integer, or what text writes of one in decimal digits; else None."""
    if isinstance(value, int):
        return int(value)
    text = value.removeprefix("-") if isinstance(value, str) else ""
    # Digits of other scripts are decimal too, superscripts are not; Python refuses numbers of thousands of digits.
    return int(value) if text.isdecimal() and len(text) < 20 else None


def text_of(record: Mapping[str, Any], name: str, *, where: str) -> str:
    """Returns a text of a record.

    Args:
      record: A JSON object, or a row by column.
      name: The field.
      where: `file:line`, for the error.

    Raises:
      DataError: There is no such field, or it is no text that a model can read.
    """
    value = record.get(name)
    if isinstance(value, str):
        return lines.check_text(value, name, where=where)
    raise DataError(
        f"{where} has no text {name!r}",
        got=value,
        expected=f"text in {name!r}; the line has {', '.join(map(repr, record))}",
        fix="correct the line",
    )


def to_label(label: Any, classes: tuple[str, ...], *, where: str) -> int | float:
    """Returns the class index of a label as the files write it: bool, class name, index, or absent.

    Args:
      label: The value in the file; None where it is withheld.
      classes: Name of each class, by class index; empty where labels are numbers.
      where: `file:line`, for the error.

    Raises:
      DataError: It is none of these.
    """
    if label is None:
        return UNKNOWN_LABEL if classes else float(UNKNOWN_LABEL)
    if not classes:
        return _to_number(label, where=where)
    if isinstance(label, str) and label in classes:
        return classes.index(label)
    index = _to_integer(label)
    if index is not None and UNKNOWN_LABEL <= index < len(classes):
        return index
    raise DataError(
        f"{where} has an unknown label",
        got=lines.shorten(label) if isinstance(label, str) else label,
        expected=f"one of {', '.join(map(repr, classes))}",
        fix="correct the line",
    )


def _to_number(label: Any, *, where: str) -> float:
    """Returns a label that is a number, or the mark of a withheld one."""
    try:
        number = float(label)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if 0 <= number <= MAX_SCORE or number == UNKNOWN_LABEL:
        return number
    raise DataError(
        f"{where} has a label that is no number of the scale",
        got=lines.shorten(label) if isinstance(label, str) else label,
        expected=f"a number from 0 to {MAX_SCORE:g}",
        fix="correct the line",
    )
