"""JSONL, TSV and CSV files; every record knows its line, every fault names file, line and remedy."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data.lines import parse_json_object, read_lines
from prompt_tuning.errors import DataError

JSON_SUFFIXES = (".jsonl", ".json")
_MAX_CELL_CHARACTERS = 2**31 - 1

Record = Mapping[str, Any]
Rows = Iterable[tuple[int, list[str]]]


def suffix(path: epath.Path) -> str:
    """Returns what the name of a file, compressed or not, ends in, in small letters: `.jsonl` of `a.JSONL.gz`."""
    return epath.Path(path.name.removesuffix(".gz")).suffix.lower()


def read_records(
    path: epath.Path,
    fields: Sequence[str] = (),
    *,
    header: Sequence[str] = (),
    skips_ragged: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the records of a file.

    A byte order mark and carriage returns at line ends are dropped, blank lines of JSONL skipped. TSV has no quotes,
    CSV those of spreadsheets, so that a record may span lines.

    Args:
      path: A file `*.tsv` or `*.csv` (a header, then a record a row), else one of JSON objects, one a line; with or
        without `.gz`.
      fields: Names that the header of a table must have.
      header: Names of the columns of a table that may have none itself: where its first row is not `fields`.
      skips_ragged: Whether rows with too few cells are left out, or refused.

    Yields:
      (`file:line`, record) in order; the values of a table are text.

    Raises:
      DataError: The file is missing, empty or malformed.
    """
    numbered = read_lines(path)
    kind = suffix(path)
    is_empty = True
    if kind in (".tsv", ".csv"):
        rows = _csv_rows(path, numbered) if kind == ".csv" else _tsv_rows(numbered)
        found = _table(path, rows, fields, header, skips_ragged)
    else:
        found = _objects(path, numbered)
    for where, record in found:
        is_empty = False
        yield where, record
    if is_empty:
        raise DataError(
            "The file holds no examples",
            got=str(path),
            expected="at least one record",
            fix="put examples into the file, or leave it out",
        )


def _objects(
    path: epath.Path, lines: Iterable[tuple[int, str]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file:line`, JSON object)."""
    for number, line in lines:
        if line.strip():
            yield f"{path}:{number}", parse_json_object(line, where=f"{path}:{number}")


def _tsv_rows(lines: Iterable[tuple[int, str]]) -> Rows:
    """Yields (line, cells); quotes have no meaning."""
    for number, line in lines:
        yield number, line.split("\t")


def _csv_rows(path: epath.Path, lines: Iterable[tuple[int, str]]) -> Rows:
    """Yields (line on which the row begins, cells)."""
    # A carriage return inside a cell is text, which the module takes for a line end. No line has a NUL to take for it.
    text = io.StringIO("".join(f"{line}\n".replace("\r", "\0") for _, line in lines), newline="\n")
    # The module's own limit is a setting of the process, and smaller than a long text.
    limit = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    reader = csv.reader(text, strict=True)
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield begin, [cell.replace("\0", "\r") for cell in cells]
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{begin} is not CSV ({error})",
            got=f"the row that begins on line {begin}",
            expected='cells separated by commas; one with a comma, a quote or a line end as "…", its quotes doubled',
            fix="correct the quotes of the row, or save the file as JSONL",
        ) from error
    finally:
        csv.field_size_limit(limit)


def _table(
    path: epath.Path, rows: Rows, fields: Sequence[str], header: Sequence[str], skips_ragged: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file:line`, record by column name)."""
    names: list[str] | None = None
    for number, cells in rows:
        where = f"{path}:{number}"
        if names is None:
            has_header = not header or set(fields) <= set(cells)
            names = cells if has_header else list(header)
            _check_header(names, fields, where=where)
            if has_header:
                continue
        if len(cells) < len(names) and skips_ragged:
            continue
        if len(cells) != len(names):
            raise DataError(
                f"{where} has the wrong number of columns",
                got=len(cells),
                expected=f"{len(names)} ({', '.join(names)})",
                fix="correct the line",
            )
        yield where, dict(zip(names, cells, strict=True))


def _check_header(header: Sequence[str], fields: Sequence[str], *, where: str) -> None:
    """Raises DataError if a column is missing or named twice."""
    for field in fields:
        if field not in header:
            raise DataError(
                f"{where} has no column {field!r}",
                got=", ".join(header),
                expected=f"a header with {', '.join(fields)}",
                fix="add the header row, correct what names the column, or save plain text as .txt",
                name=field,
                candidates=header,
            )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(
            f"{where} names a column twice",
            got=twice[0],
            expected="a name of its own for each column",
            fix="rename one of the columns",
        )


def check_ids(name: str, values: Iterable[tuple[str, Any]]) -> None:
    """Checks that no two examples have the same id.

    Args:
      name: The field of the id.
      values: (`file:line`, id) of the examples that have one. The text of a number and the number are one id, as in a
        TSV copy of a file.

    Raises:
      DataError: Two are the same.
    """
    first: dict[str, str] = {}
    for where, value in values:
        if str(value) in first:
            raise DataError(
                f"{where} has the {name!r} of an earlier example",
                got=value,
                expected=f"an {name!r} of its own; {first[str(value)]} has the same",
                fix="remove one of the two, or number them anew",
            )
        first[str(value)] = where
