"""The original files of SuperGLUE (JSONL) and GLUE (TSV), read into the columns that TensorFlow Datasets has."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from prompt_tuning.data import columns, lines
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


# Split -> the stems of its file in place of those above.
Stems = tuple[tuple[str, tuple[str, ...]], ...]


class FileFormat(Protocol):
    """How one data set lies on disk: `LocalFormat`, or `nested_files.NestedFormat`."""

    @property
    def folder(self) -> str:
        """Folder below `data_dir`, for example `BoolQ`."""
        ...

    @property
    def suffix(self) -> str:
        """End of the files' names."""
        ...

    @property
    def stems(self) -> Stems:
        """File names without suffix, where they are not `SPLIT_STEMS`."""
        ...

    def read(self, path: epath.Path, split: str) -> Columns:
        """Returns the examples of a split's file."""
        ...


@dataclasses.dataclass(frozen=True)
class LocalFormat:
    """How a data set of one example a line lies on disk.

    Attributes:
      folder: Folder below `data_dir`, for example `BoolQ`.
      suffix: `.jsonl` or `.tsv`.
      fields: Text columns, as TensorFlow Datasets names them.
      classes: Name of each class as the files write it, by class index. JSON booleans are the indices 0 and 1. Empty
        where labels are numbers.
      columns: What the files call each of `fields`; empty where that is the same.
      label_column: What the files call the label.
      stems: File names without suffix, where they are not `SPLIT_STEMS`.
      header: Names of the columns of a TSV file that may have none itself.
      skips_ragged: Whether rows with too few cells are left out, as TensorFlow Datasets does, or refused.
    """

    folder: str
    suffix: str
    fields: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    label_column: str = "label"
    stems: Stems = ()
    header: tuple[str, ...] = ()
    skips_ragged: bool = False

    def read(self, path: epath.Path, split: str) -> Columns:
        """Reads a file.

        Args:
          path: A `.jsonl` or `.tsv` file.
          split: Its split; only one whose name starts with `test` may lack labels.

        Returns:
          Each text field as [n] bytes objects (UTF-8), `label` as [n] int64 (-1 where withheld; float32 without
          classes), `idx` as [n] int32 (the file's own, else the position).

        Raises:
          DataError: A line is malformed (named by file and line), lacks its label, or repeats an index, or there is no
            example.
        """
        records = _read_jsonl(path) if self.suffix == ".jsonl" else _read_tsv(path, self)
        rows = []
        for position, (line, record) in enumerate(records):
            where = f"{path}:{line}"
            rows.append((where, _to_row(record, self, where=where, position=position)))
        return to_columns(rows, path, split, label=self.label_column)


def find_split(data_dir: str, fmt: FileFormat, split: str) -> epath.Path:
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


def to_columns(
    rows: Sequence[tuple[str, dict[str, Any]]],
    path: epath.Path,
    split: str,
    *,
    label: str = "label",
) -> Columns:
    """Returns the examples of a file as columns.

    Args:
      rows: (`file:line`, example) in order.
      path: The file.
      split: Its split; only one whose name starts with `test` may lack labels and answers.
      label: What the file calls the label.

    Raises:
      DataError: There is no example, one lacks its label, or two have the same index or id.
    """
    if not rows:
        raise DataError(
            "The file holds no example",
            got=str(path),
            expected="a file with at least one example",
            fix="put examples into the file or choose another split",
        )
    if not split.startswith("test"):
        for where, row in rows:
            _check_labelled(row, split, label, where=where)
    _check_ids(rows)
    return columns.from_rows([row for _, row in rows])


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


def _check_ids(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Raises DataError if two examples have the same index or id."""
    first: dict[Any, str] = {}
    name = next((name for name in ID_COLUMNS if name in rows[0][1]), None)
    if name is None:
        return
    for where, row in rows:
        value = row[name]
        key = tuple(value.values()) if isinstance(value, Mapping) else value
        if key in first:
            raise DataError(
                f"{where} has the {name!r} of an earlier example",
                got=value,
                expected=f"an {name!r} of its own; {first[key]} has the same",
                fix="remove one of the two, or number every example anew",
            )
        first[key] = where


def _read_jsonl(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (line number, record) of a JSONL file."""
    for number, line in lines.read_lines(path):
        if line.strip():
            yield number, lines.parse_json_object(line, where=f"{path}:{number}")


def _read_tsv(path: epath.Path, fmt: LocalFormat) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number, record by column name) of a TSV file; quotes have no meaning in GLUE."""
    header: list[str] | None = None
    for number, line in lines.read_lines(path):
        cells = line.split("\t")
        if header is None:
            # CoLA has a header in its test file only.
            has_header = not fmt.header or set(fmt.columns or fmt.fields) <= set(cells)
            header = cells if has_header else list(fmt.header)
            lines.check_columns(header, where=f"{path}:{number}")
            if has_header:
                continue
        if len(cells) < len(header) and fmt.skips_ragged:
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{path}:{number} has the wrong number of columns",
                got=len(cells),
                expected=f"{len(header)} ({', '.join(header)})",
                fix="correct the line",
            )
        yield number, dict(zip(header, cells, strict=True))


def _to_row(
    record: Mapping[str, Any], fmt: LocalFormat, *, where: str, position: int
) -> dict[str, Any]:
    """Returns one example as TensorFlow Datasets would hold it."""
    names = fmt.columns or fmt.fields
    row: dict[str, Any] = {
        field: text_of(record, name, where=where)
        for field, name in zip(fmt.fields, names, strict=True)
    }
    row["label"] = to_label(record.get(fmt.label_column), fmt.classes, where=where)
    name = next((name for name in ("idx", "index") if name in record), None)
    row["idx"] = position if name is None else to_index(record[name], name, where=where)
    return row


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
