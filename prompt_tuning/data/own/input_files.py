"""Files of inputs to run a trained prompt on: JSONL, TSV or one input a line."""

from typing import Any

from etils import epath

from prompt_tuning.data.lines import (
    check_columns,
    check_text,
    parse_json_object,
    read_lines,
    shorten,
)
from prompt_tuning.errors import DataError

Example = dict[str, Any]


def read_examples(path: str) -> list[Example]:
    """Reads the examples of a file.

    Args:
      path: `*.jsonl` or `*.json` with one object a line that has `inputs` and may have `targets`; `*.tsv` with a header
        that names the column `inputs` and may name `targets`; any other file holds one input a line (an empty line
        is an empty input). A `.gz` behind the name says that the file is compressed.

    Returns:
      Examples in the file's order, with "inputs" and, all or none, "targets" as text; other keys stay as they are.

    Raises:
      DataError: The file is missing or empty, a line is malformed (named by file and line), or only some have targets.
    """
    file = epath.Path(path)
    if not file.is_file():
        raise DataError(
            "The input file does not exist",
            got=str(path),
            expected="a JSONL, TSV or text file",
            fix="correct the path",
        )
    suffix = epath.Path(file.name.removesuffix(".gz")).suffix
    if suffix in (".jsonl", ".json"):
        examples = _read_jsonl(file)
    elif suffix == ".tsv":
        examples = _read_tsv(file)
    else:
        examples = [{"inputs": line} for _, line in read_lines(file)]
    if not examples:
        raise DataError(
            "The input file holds no examples",
            got=str(path),
            expected="at least one",
            fix="name another file",
        )
    return examples


def _read_jsonl(file: epath.Path) -> list[Example]:
    """Returns the objects of a JSONL file."""
    examples, without = [], []
    for number, line in read_lines(file):
        if line.strip():
            where = f"{file}:{number}"
            record = _checked(parse_json_object(line, where=where), where=where, line=line)
            examples.append(record)
            if "targets" not in record:
                without.append(where)
    if 0 < len(without) < len(examples):
        raise DataError(
            f"{without[0]} has no key 'targets', which other lines have",
            got=f"{len(without)} of {len(examples)} without",
            expected="targets on every line, or on none",
            fix="add 'targets' to this line, or remove the key from all",
        )
    return examples


def _read_tsv(file: epath.Path) -> list[Example]:
    """Returns the rows of a TSV file by the names in its header."""
    header: list[str] | None = None
    examples = []
    for number, line in read_lines(file):
        where = f"{file}:{number}"
        cells = line.split("\t")
        if header is None:
            header = cells
            check_columns(header, where=where)
            if "inputs" not in header:
                raise DataError(
                    f"{where} has no column 'inputs'",
                    got=shorten(line),
                    expected="a header row with a column named inputs",
                    fix="add the header, or give the file another suffix than .tsv to read it as plain text",
                    name="inputs",
                    candidates=header,
                )
        elif len(cells) != len(header):
            raise DataError(
                f"{where} has the wrong number of columns",
                got=len(cells),
                expected=f"{len(header)} ({', '.join(header)})",
                fix="correct the line",
            )
        else:
            examples.append(dict(zip(header, cells, strict=True)))
    return examples


def _checked(record: Example, *, where: str, line: str) -> Example:
    """Returns a JSON record whose `inputs` and `targets` are text."""
    if "inputs" not in record:
        raise DataError(
            f"{where} has no key 'inputs'",
            got=shorten(line),
            expected='an object such as {"inputs": "…"}',
            fix="add the key",
            name="inputs",
            candidates=record,
        )
    for key in ("inputs", "targets"):
        if key in record:
            check_text(record[key], key, where=where)
    return record
