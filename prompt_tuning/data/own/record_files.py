"""A user's own JSONL, TSV and CSV files; every record knows its line, every fault names file, line and remedy."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data.lines import check_columns, parse_json_object, read_lines
from prompt_tuning.errors import DataError

SUFFIXES = (".jsonl", ".tsv", ".csv")
# Fields that number examples, where a file has them.
ID_FIELDS = ("id", "idx")
_MAX_CELL_CHARACTERS = 2**31 - 1

Record = Mapping[str, Any]


def read_records(paths: Sequence[str], fields: Sequence[str]) -> list[tuple[str, Record]]:
    """Reads the files of one split.

    A byte order mark and carriage returns at line ends are dropped, blank lines of JSONL skipped. TSV has no quotes,
    CSV those of spreadsheets, so that a record may span lines.

    Args:
      paths: Files `*.jsonl` (an object a line), `*.tsv` or `*.csv` (a header, then a record a row).
      fields: Names that every TSV and CSV header must have.

    Returns:
      (`file:line`, record) in order; the values of TSV and CSV are text.

    Raises:
      DataError: A file is missing, empty or malformed, or two records have the same `id` (or `idx`).
    """
    found: list[tuple[str, Record]] = []
    for path in paths:
        records = list(_read_file(epath.Path(path), fields))
        if not records:
            raise DataError(
                "The file holds no examples",
                got=str(path),
                expected="at least one record",
                fix="put examples into the file, or leave its split out",
            )
        found += records
    _check_ids(found)
    return found


def _read_file(path: epath.Path, fields: Sequence[str]) -> Iterator[tuple[str, Record]]:
    """Yields (`file:line`, record) of a file."""
    if not path.is_file():
        raise DataError(
            "The file does not exist",
            got=str(path),
            expected=f"a file that ends in {', '.join(SUFFIXES)}",
            fix="correct the path",
            name=path.name,
            candidates=[p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [],
        )
    numbered = read_lines(path)
    if path.suffix == ".jsonl":
        for number, line in numbered:
            if line.strip():
                yield f"{path}:{number}", parse_json_object(line, where=f"{path}:{number}")
        return
    rows = _csv_rows(path, numbered) if path.suffix == ".csv" else _tsv_rows(numbered)
    yield from _table(path, rows, fields)


def _tsv_rows(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, cells); quotes have no meaning."""
    for number, line in lines:
        yield number, line.split("\t")


def _csv_rows(
    path: epath.Path, lines: Iterator[tuple[int, str]]
) -> Iterator[tuple[int, list[str]]]:
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
    path: epath.Path, rows: Iterator[tuple[int, list[str]]], fields: Sequence[str]
) -> Iterator[tuple[str, Record]]:
    """Yields (`file:line`, record by column name)."""
    header: list[str] | None = None
    for number, cells in rows:
        where = f"{path}:{number}"
        if header is None:
            header = cells
            _check_header(header, fields, where=where)
        elif len(cells) != len(header):
            raise DataError(
                f"{where} has the wrong number of columns",
                got=len(cells),
                expected=f"{len(header)} ({', '.join(header)})",
                fix="correct the line",
            )
        else:
            yield where, dict(zip(header, cells, strict=True))


def _check_header(header: Sequence[str], fields: Sequence[str], *, where: str) -> None:
    """Raises DataError if a column is missing or named twice."""
    for field in fields:
        if field not in header:
            raise DataError(
                f"{where} has no column {field!r}",
                got=", ".join(header),
                expected=f"a header with {', '.join(fields)}",
                fix="add the header row, or correct the template",
                name=field,
                candidates=header,
            )
    check_columns(header, where=where)


def _check_ids(records: Sequence[tuple[str, Record]]) -> None:
    """Raises DataError if two records have the same text or number as their id."""
    for field in ID_FIELDS:
        first: dict[Any, str] = {}
        for where, record in records:
            value = record.get(field)
            # Some benchmarks number by nested objects; those are no ids to compare.
            if not isinstance(value, str | int) or isinstance(value, bool):
                continue
            # The text of a number and the number are one id, as in a TSV copy of the file.
            key = str(value)
            if key in first:
                raise DataError(
                    f"{where} has the {field!r} of an earlier example",
                    got=value,
                    expected=f"an {field!r} of its own; {first[key]} has the same",
                    fix="remove one of the two, or number them anew",
                )
            first[key] = where
