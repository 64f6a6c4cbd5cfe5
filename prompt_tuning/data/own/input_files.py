"""Files of inputs to run a trained prompt on: JSONL, TSV, CSV or one input a line."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from prompt_tuning.data import records, tables
from prompt_tuning.data.lines import check_text, read_lines, shorten
from prompt_tuning.errors import DataError

Example = dict[str, Any]


def read_examples(path: str) -> list[Example]:
    """Reads the examples of a file.

    Args:
      path: `*.jsonl` or `*.json` with objects that have `inputs` and may have `targets`; `*.tsv` or `*.csv` with a
        header that names the column `inputs` and may name `targets`, all read as the files of a task are; any other
        file holds one input a line (an empty line is an empty input). Each may be gzip-compressed and end in `.gz` too.

    Returns:
      Examples in the file's order, with "inputs" and, all or none, "targets" as text; other keys stay as they are.

    Raises:
      DataError: The file is missing or empty, a line is malformed (named by file and line), only some have targets, or
        the file holds something else than its name says.
    """
    file = epath.Path(path)
    if records.suffix(file) in records.SUFFIXES:
        found = list(records.read_records(file, ["inputs"], optional=["targets", "task"]))
        # Withheld from all, by null or by empty cells.
        if not any(record.get("targets") for _, record in found):
            for _, record in found:
                record.pop("targets", None)
        for where, record in found:
            _check(record, where=where)
        _check_targets(found)
        return [record for _, record in found]
    examples: list[Example] = [{"inputs": line} for _, line in read_lines(file)]
    if examples:
        # A table or JSONL under another name would be read as text, its header and all.
        tables.check_kind(examples[0]["inputs"], ["inputs"], given="", where=f"{file}:1")
    else:
        raise DataError(
            "The file holds no examples",
            got=str(path),
            expected="an input a line",
            fix="name another file",
        )
    return examples


def _check(record: Example, *, where: str) -> None:
    """Raises DataError unless `inputs`, and `targets` where there is one, are text."""
    if "inputs" not in record:
        raise DataError(
            f"{where} has no key 'inputs'",
            got=shorten(str(record)),
            expected='an object such as {"inputs": "…"}',
            fix="add the key",
            name="inputs",
            candidates=record,
        )
    for key in ("inputs", "targets"):
        if key in record:
            check_text(record[key], key, where=where)


def _check_targets(found: Sequence[tuple[str, Example]]) -> None:
    """Raises DataError if only some examples have targets."""
    without = [where for where, record in found if "targets" not in record]
    if 0 < len(without) < len(found):
        raise DataError(
            f"{without[0]} has no key 'targets', which other lines have",
            got=f"{len(without)} of {len(found)} without",
            expected="targets on every line, or on none",
            fix="add 'targets' to this line, or remove the key from all",
        )
