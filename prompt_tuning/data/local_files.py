"""The original files of SuperGLUE (JSONL) and GLUE (TSV), read into the columns that TensorFlow Datasets has."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.errors import DataError

# File names without suffix that the releases use for each split, in the order in which they are looked for.
SPLIT_STEMS = {
    "train": ("train",),
    "validation": ("val", "validation", "dev"),
    "test": ("test",),
}
UNKNOWN_LABEL = -1


@dataclasses.dataclass(frozen=True)
class LocalFormat:
    """How one data set lies on disk.

    Attributes:
      folder: Folder below `data_dir`, for example `BoolQ`.
      suffix: `.jsonl` or `.tsv`.
      fields: Text columns.
      classes: Name of each class as the files write it, by class index. JSON booleans are the indices 0 and 1.
    """

    folder: str
    suffix: str
    fields: tuple[str, ...]
    classes: tuple[str, ...]


def find_split(data_dir: str, fmt: LocalFormat, split: str) -> epath.Path:
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
    candidates = [folder / f"{stem}{fmt.suffix}" for stem in SPLIT_STEMS.get(split, (split,))]
    for path in candidates:
        if path.is_file():
            return path
    raise DataError(
        f"Split {split!r} of {fmt.folder} is empty: its file is missing",
        got=str(candidates[0]),
        expected=f"one of {', '.join(path.name for path in candidates)} in {folder}",
        fix="put the file there or choose a split that exists",
    )


def read_split(path: epath.Path, fmt: LocalFormat) -> dict[str, np.ndarray]:
    """Reads a file into columns.

    Args:
      path: A `.jsonl` or `.tsv` file.
      fmt: Its data set's layout.

    Returns:
      Each text field as [n] bytes objects (UTF-8), `label` as [n] int64 (-1 where withheld), `idx` as [n] int32 (the
      file's own, else the position).

    Raises:
      DataError: A line is malformed (named by file and line), or there is no example.
    """
    read = _read_jsonl if fmt.suffix == ".jsonl" else _read_tsv
    rows = [
        _to_row(record, fmt, where=f"{path}:{line}", position=position)
        for position, (line, record) in enumerate(read(path))
    ]
    if not rows:
        raise DataError(
            f"The split of {fmt.folder} is empty",
            got=str(path),
            expected="a file with at least one example",
            fix="put examples into the file or choose another split",
        )
    columns: dict[str, np.ndarray] = {
        field: np.array([row[field] for row in rows], dtype=object) for field in fmt.fields
    }
    columns["label"] = np.array([row["label"] for row in rows], dtype=np.int64)
    columns["idx"] = np.array([row["idx"] for row in rows], dtype=np.int32)
    return columns


def read_lines(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file with their numbers, counted from 1.

    Only line feeds end a line: the texts themselves hold characters that `str.splitlines` would split at.

    Args:
      path: The file; a byte order mark and carriage returns at line ends are dropped.

    Raises:
      DataError: A line is not UTF-8.
    """
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
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


def _read_jsonl(path: epath.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields (line number, record) of a JSONL file."""
    for number, line in read_lines(path):
        if line.strip():
            yield number, parse_json_object(line, where=f"{path}:{number}")


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


def _read_tsv(path: epath.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (line number, record by column name) of a TSV file with a header; quotes have no meaning in GLUE."""
    header: list[str] | None = None
    for number, line in read_lines(path):
        cells = line.split("\t")
        if header is None:
            header = cells
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
    row: dict[str, Any] = {}
    for field in fmt.fields:
        value = record.get(field)
        if not isinstance(value, str):
            raise DataError(
                f"{where} has no text {field!r}",
                got=value,
                expected=f"text in {', '.join(map(repr, fmt.fields))}",
                fix="correct the line",
            )
        row[field] = value.encode("utf-8")
    row["label"] = _to_class(record.get("label"), fmt.classes, where=where)
    idx = record.get("idx", record.get("index", position))
    # Some tasks number their examples by a nested object; there the position identifies an example.
    row["idx"] = int(idx) if isinstance(idx, int | str) and str(idx).isdigit() else position
    return row


def _to_class(label: Any, classes: tuple[str, ...], *, where: str) -> int:
    """Returns the class index of a label as the files write it: bool, class name, index, or absent."""
    if label is None:
        return UNKNOWN_LABEL
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


def shorten(text: str, width: int = 80) -> str:
    """Returns `text`, cut to `width` characters for an error."""
    return text if len(text) <= width else text[: width - 1] + "…"
