"""The original files of SuperGLUE (JSONL) and GLUE (TSV), read into the columns that TensorFlow Datasets has."""

import dataclasses
import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from etils import epath

from prompt_tuning.data import columns
from prompt_tuning.data.columns import Columns
from prompt_tuning.errors import DataError

# File names without suffix that the releases use for each split, in the order in which they are looked for.
SPLIT_STEMS = {
    "train": ("train",),
    "validation": ("val", "validation", "dev"),
    "test": ("test",),
}
UNKNOWN_LABEL = -1


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

    def read(self, path: epath.Path) -> Columns:
        """Returns the examples of a file."""
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

    def read(self, path: epath.Path) -> Columns:
        """Reads a file.

        Args:
          path: A `.jsonl` or `.tsv` file.

        Returns:
          Each text field as [n] bytes objects (UTF-8), `label` as [n] int64 (-1 where withheld; float32 without
          classes), `idx` as [n] int32 (the file's own, else the position).

        Raises:
          DataError: A line is malformed (named by file and line), or there is no example.
        """
        lines = _read_jsonl(path) if self.suffix == ".jsonl" else _read_tsv(path, self)
        return to_columns(
            [
                _to_row(record, self, where=f"{path}:{line}", position=position)
                for position, (line, record) in enumerate(lines)
            ],
            path,
        )


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


def to_columns(rows: list[dict[str, Any]], path: epath.Path) -> Columns:
    """Returns the examples of a file as columns.

    Args:
      rows: The examples.
      path: The file.

    Raises:
      DataError: There is none.
    """
    if not rows:
        raise DataError(
            "The file holds no example",
            got=str(path),
            expected="a file with at least one example",
            fix="put examples into the file or choose another split",
        )
    return columns.from_rows(rows)


def read_lines(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file with their numbers, counted from 1.

    Only line feeds end a line: the texts themselves hold characters that `str.splitlines` would split at.

    Args:
      path: The file, decompressed if its name ends in `.gz`; a byte order mark and carriage returns at line ends are
        dropped.

    Raises:
      DataError: A line is not UTF-8.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}:{number} is not UTF-8 text",
                got=line[max(error.start - 20, 0) : error.start + 20],
                expected="UTF-8",
                fix="convert the file to UTF-8",
            ) from error


def parse_json_object(line: str, *, where: str) -> dict[str, Any]:
    """Returns the JSON object that a line holds.

    Args:
      line: One line of a JSONL file.
      where: `file:line`, for the error.

    Raises:
      DataError: The line is not JSON, or not an object.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where} is not JSON ({error.msg} at column {error.colno})",
            got=shorten(line),
            expected="one JSON object a line",
            fix="correct the line",
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{where} is not a JSON object",
            got=shorten(line),
            expected="one JSON object a line",
            fix="correct the line",
        )
    return record


def _read_jsonl(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (line number, record) of a JSONL file."""
    for number, line in read_lines(path):
        if line.strip():
            yield number, parse_json_object(line, where=f"{path}:{number}")


def _read_tsv(path: epath.Path, fmt: LocalFormat) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number, record by column name) of a TSV file; quotes have no meaning in GLUE."""
    header: list[str] | None = None
    for number, line in read_lines(path):
        cells = line.split("\t")
        if header is None:
            # CoLA has a header in its test file only.
            has_header = not fmt.header or set(fmt.columns or fmt.fields) <= set(cells)
            header = cells if has_header else list(fmt.header)
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
    idx = record.get("idx", record.get("index", position))
    row["idx"] = int(idx) if isinstance(idx, int | str) and str(idx).isdigit() else position
    return row


def text_of(record: Mapping[str, Any], name: str, *, where: str) -> str:
    """Returns a text of a record.

    Args:
      record: A JSON object, or a row by column.
      name: The field.
      where: `file:line`, for the error.

    Raises:
      DataError: There is no such field, or it is no text.
    """
    value = record.get(name)
    if isinstance(value, str):
        return value
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
    text = str(int(label)) if isinstance(label, bool) else str(label)
    if text.removeprefix("-").isdigit() and UNKNOWN_LABEL <= int(text) < len(classes):
        return int(text)
    raise DataError(
        f"{where} has an unknown label",
        got=label,
        expected=f"one of {', '.join(map(repr, classes))}",
        fix="correct the line",
    )


def _to_number(label: Any, *, where: str) -> float:
    """Returns a label that is a number."""
    try:
        return float(label)
    except (TypeError, ValueError):
        raise DataError(
            f"{where} has a label that is no number",
            got=label,
            expected="a number",
            fix="correct the line",
        ) from None


def shorten(text: str, width: int = 80) -> str:
    """Returns `text`, cut to `width` characters for an error."""
    return text if len(text) <= width else text[: width - 1] + "…"
