"""JSONL, TSV and CSV files; every record knows its line, every fault names file, line and remedy."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data import tables
from prompt_tuning.data.lines import parse_json, parse_json_object, read_lines, shorten
from prompt_tuning.errors import DataError

JSON_SUFFIXES = (".jsonl", ".json")
SUFFIXES = (".jsonl", ".tsv", ".csv", ".json")

Record = Mapping[str, Any]
# Fields that number examples, where a file has them.
ID_FIELDS = ("id", "idx")


def suffix(path: epath.Path) -> str:
    """Returns what the name of a file, compressed or not, ends in, in small letters: `.jsonl` of `a.JSONL.gz`."""
    return epath.Path(path.name.removesuffix(".gz")).suffix.lower()


def read_records(
    path: epath.Path,
    fields: Sequence[str] = (),
    *,
    optional: Sequence[str] = (),
    header: Sequence[str] = (),
    skips_ragged: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the records of a file, by the dialect that docs/use/tasks.md describes.

    A byte order mark and carriage returns at line ends are dropped, blank lines of JSONL skipped. TSV has no quotes,
    CSV those of spreadsheets, so that a record may span lines. Columns without a name, and those that share one, are
    left out unless they are used.

    Args:
      path: A file `*.tsv` or `*.csv` (a header, then a record a row), else one of JSON objects, one a line or all in
        one array; with or without `.gz`.
      fields: Names that the header of a table must have.
      optional: Names that are used where there are such columns.
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
    if kind in tables.SEPARATORS:
        used = dict.fromkeys((*fields, *optional))
        found = tables.read_table(path, kind, numbered, fields, used, header, skips_ragged)
    else:
        found = _objects(path, numbered, fields)
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
    path: epath.Path, lines: Iterable[tuple[int, str]], fields: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file:line`, JSON object); of one array, (`file item N`, object)."""
    is_first = True
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if is_first and line.lstrip().startswith("["):
            text = "\n".join([*[""] * (number - 1), line, *(line for _, line in lines)])
            yield from _items(text, path)
            return
        if is_first:
            tables.check_kind(line, fields, given=".jsonl", where=where)
        is_first = False
        yield where, parse_json_object(line, where=where)


def _items(text: str, path: epath.Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (`file item N`, object) of a JSON array of objects."""
    for number, item in enumerate(parse_json(text, where=str(path)), start=1):
        where = f"{path} item {number}"
        if not isinstance(item, dict):
            raise DataError(
                f"{where} is not a JSON object",
                got=shorten(str(item)),
                expected="an array of objects, or one object a line",
                fix="correct the item",
            )
        yield where, item


def check_id_fields(found: Iterable[tuple[str, Record]]) -> None:
    """Checks that no two records have the same `id`, nor the same `idx`; arguments and error as `check_ids`."""
    for name in ID_FIELDS:
        ids = [(where, record.get(name)) for where, record in found]
        # Some benchmarks number by nested objects; those are no ids to compare.
        check_ids(name, [i for i in ids if type(i[1]) in (str, int)])


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
