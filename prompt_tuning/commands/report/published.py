"""What was published, as `assets/paper.toml` has it, as tables; Table 4 follows from a few of its numbers."""

import tomllib
from collections.abc import Mapping
from typing import Any

from etils import epath

from prompt_tuning.commands.report.tables import Cell, Table, count, text

ASSETS = epath.resource_path("prompt_tuning") / "commands/report/assets"
PAPER: dict[str, Any] = tomllib.loads((ASSETS / "paper.toml").read_text())
# Size -> its `label`, and the parameters of T5 1.1 (`frozen`) and of prompts (`trainable`).
SIZES: dict[str, dict[str, Any]] = PAPER["table_4"]["sizes"]
LENGTHS: list[int] = PAPER["table_4"]["lengths"]


def table(section: Mapping[str, Any]) -> Table:
    """Returns the published table of a section."""
    found = section["published"]
    read = Cell if found.get("is_text") else _cell
    rows = [[read(cell) for cell in row] for row in found.get("rows", ())] or _table_4_rows()
    return Table(found["caption"], found["columns"], rows, found["kind"])


def table_4(size: str, length: int) -> dict[str, Cell]:
    """Returns the paper's Table 4 for one model and one prompt length, misprints corrected and noted.

    Args:
      size: One of `SIZES`.
      length: One of `LENGTHS`. Unit: tokens.

    Returns:
      `trainable` and `total` parameters, and `percent`, the share of the trainable in the total.
    """
    trainable = SIZES[size]["trainable"][LENGTHS.index(length)]
    total = SIZES[size]["frozen"] + trainable
    percent = 100 * trainable / total
    notes = PAPER["table_4"]["notes"].get(f"{size} {length}", {})
    return {
        "trainable": Cell(f"{trainable:,}", trainable, notes.get("trainable", "")),
        "total": Cell(f"{total:,}", total, notes.get("total", "")),
        "percent": Cell(f"{percent:.5f}", percent, notes.get("percent", "")),
    }


def _table_4_rows() -> list[list[Cell]]:
    """The rows of Table 4."""
    return [
        [text(known["label"]), count(length), *table_4(size, length).values()]
        for size, known in SIZES.items()
        for length in LENGTHS
    ]


def _cell(value: str | Mapping[str, Any]) -> Cell:
    """A cell that is sorted by the number it shows, unless another is given."""
    if isinstance(value, str):
        return text(value)
    note = PAPER["notes"][value["note"]] if "note" in value else ""
    return Cell(value["text"], value.get("sort", text(value["text"]).sort), note)
