"""Tables of text: CSV and TSV, their headers, and which of the two (or JSONL) a line looks like."""

import csv
import io
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from absl import logging
from etils import epath

from prompt_tuning.data.lines import shorten
from prompt_tuning.errors import DataError

# What separates the cells of a table, by the end of its name.
SEPARATORS = {".csv": ",", ".tsv": "\t"}
_SEPARATOR_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
_MAX_CELL_CHARACTERS = 2**31 - 1
_QUOTED = re.compile(r'"(?:[^"]|"")*"')

Rows = Iterable[tuple[int, list[str]]]


def read_table(
    path: epath.Path,
    kind: str,
    lines: Iterable[tuple[int, str]],
    fields: Sequence[str],
    used: Collection[str],
    header: Sequence[str],
    skips_ragged: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file:line`, record by column name).

    Args:
      path: The file, for messages.
      kind: ".csv" or ".tsv".
      lines: (number, text) of its lines.
      fields: As `records.read_records`.
      used: All names that are used; no two columns may share one.
      header: As `records.read_records`.
      skips_ragged: As `records.read_records`.
    """
    lines = iter(lines)
    first = list(itertools.islice(lines, 1))
    if first and not header:
        check_kind(first[0][1], fields, given=kind, where=f"{path}:1")
    lines = itertools.chain(first, lines)
    rows = _csv_rows(path, lines) if kind == ".csv" else _tsv_rows(lines)
    names: list[str] | None = None
    unused: set[str] = set()
    quoted: list[tuple[str, str]] = []
    for number, cells in rows:
        where = f"{path}:{number}"
        if names is None:
            titles = [cell.strip() for cell in cells]
            has_header = not header or set(fields) <= set(titles)
            names = titles if has_header else list(header)
            _check_header(names, fields, used, where=where)
            # Spreadsheets end every row with the separators of columns that nobody filled.
            while not names[-1] and len(names) > 1:
                names.pop()
            unused = {name for name in names if names.count(name) > 1 or not name}
            if has_header:
                continue
        extra = cells[len(names) :]
        if not any(extra):
            cells = cells[: len(names)]
        if len(cells) < len(names) and skips_ragged:
            continue
        if len(cells) != len(names):
            raise _ragged(cells, names, kind, where)
        if kind == ".tsv" and not header:
            quoted += [(where, cell) for cell in cells if _QUOTED.fullmatch(cell)]
        named = zip(names, cells, strict=True)
        yield where, {name: cell for name, cell in named if name not in unused}
    if quoted:
        where, cell = quoted[0]
        logging.warning(
            "%s: cells look quoted (%d, first %s); a TSV has no quotes here, so that they are part of the text:"
            " remove them, or save the file as CSV",
            where,
            len(quoted),
            shorten(cell),
        )


def check_kind(line: str, fields: Sequence[str], *, given: str, where: str) -> None:
    """Raises DataError if the first line of a file looks like that of another kind.

    Args:
      line: The line.
      fields: Names that a header has.
      given: What the file's name says it is: ".jsonl", ".csv", ".tsv", or "" for lines of text.
      where: `file:line`, for the error.
    """
    found = _kind_of(line, fields, given)
    if found is None or found == given:
        return
    if found == ".jsonl":
        what, fix = "holds JSON", "rename the file so that it ends in .jsonl"
    elif found in SEPARATORS:
        what = f"is separated by {_SEPARATOR_NAMES[SEPARATORS[found]]} (a header of {found[1:].upper()})"
        fix = f"rename the file so that it ends in {found}"
    else:
        what = f"is separated by {found!r} ({_SEPARATOR_NAMES[found]})"
        fix = "save the file again with commas between the cells (.csv), or with tabs (.tsv)"
    expected = {
        ".jsonl": "a JSON object, as the file's name says",
        ".csv": "commas between the cells, as the file's name says",
        ".tsv": "tabs between the cells, as the file's name says",
        "": "an input a line, as the file's name says",
    }[given]
    raise DataError(f"{where} {what}", got=shorten(line), expected=expected, fix=fix)


def _kind_of(line: str, fields: Sequence[str], given: str) -> str | None:
    """What a first line is: ".jsonl", ".csv", ".tsv", another separator, or None where that is not clear."""
    if re.match(r'\s*[\[{]\s*["{]', line):
        return ".jsonl" if all(f'"{name}"' in line for name in fields) else None
    kinds = {separator: kind for kind, separator in SEPARATORS.items()}
    own = [SEPARATORS[given]] if given in SEPARATORS else []
    for separator in (*own, *_SEPARATOR_NAMES):
        cells = [cell.strip().strip('"').strip() for cell in line.split(separator)]
        is_table = len(cells) > 1 or cells == list(fields)
        if fields and is_table and set(fields) <= set(cells):
            return kinds.get(separator, separator)
    return None


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


def _check_header(
    names: Sequence[str], fields: Sequence[str], used: Collection[str], *, where: str
) -> None:
    """Raises DataError if a column is missing, or a name that is used belongs to two."""
    for field in fields:
        if field not in names:
            raise DataError(
                f"{where} has no column {field!r}",
                got=", ".join(names),
                expected=f"a header with {', '.join(fields)}",
                fix="remove the quotes from the file, or save it as CSV"
                if f'"{field}"' in names
                else "add the header row, correct what names the column, or save plain text as .txt",
                name=field,
                candidates=names,
            )
    twice = [name for name in names if name in used and names.count(name) > 1]
    if twice:
        raise DataError(
            f"{where} names a column twice",
            got=twice[0],
            expected="a name of its own for each column that is used",
            fix="rename one of the columns",
        )


def _ragged(cells: Sequence[str], names: Sequence[str], kind: str, where: str) -> DataError:
    """The error for a row with too many cells, or too few."""
    is_quoted = kind == ".tsv" and any('"' in (cell[:1], cell[-1:]) for cell in cells)
    return DataError(
        f"{where} has the wrong number of columns",
        got=len(cells),
        expected=f"{len(names)} ({', '.join(names)})",
        fix="save the file as CSV: a TSV has no quotes around tabs and line ends"
        if is_quoted
        else "correct the line",
    )
