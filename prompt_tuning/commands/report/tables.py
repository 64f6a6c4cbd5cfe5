"""Tables as data: what the page shows, sorts and marks."""

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

from prompt_tuning.commands.report.averages import Point
from prompt_tuning.commands.report.figures import MEASURED
from prompt_tuning.commands.report.rows import METHODS


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
      text: What is shown.
      sort: Number to sort by; None sorts by the text, and an empty text sorts last.
      note: Shown below the table with a mark at the cell.
      more: Longer text, shown when the reader opens the cell.
    """

    text: str
    sort: float | None = None
    note: str = ""
    more: str = ""


@dataclass(frozen=True)
class Table:
    """A table of numbers of one origin.

    Args:
      caption: Text above.
      columns: Headings.
      rows: Cells, one for each column.
      kind: Whose numbers: `figures.MEASURED`, `PAPER` or `OTHER`.
      published_columns: Columns of a measured table that hold published numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = MEASURED
    published_columns: tuple[int, ...] = ()

    @property
    def notes(self) -> list[str]:
        """The different notes of the cells, in the order of their marks."""
        return list(dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note))

    def mark(self, note: str) -> str:
        """Returns the letter of a note: a figure would look like an exponent."""
        return string.ascii_lowercase[self.notes.index(note)]

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return any(row[column].sort is not None for row in self.rows)


def label(axis: str, value: str) -> str:
    """Returns how a value of an axis is written."""
    return METHODS.get(value, value) if axis == "method" else value


def text(value: str) -> Cell:
    """Returns a cell with text; one that shows a number is sorted by it."""
    return Cell(value, _number(value))


def _number(shown: str) -> float | None:
    """A mean without its deviation, of several scores their mean, a time in seconds; None of other text."""
    try:
        if ":" in shown:
            *hours, minutes, seconds = map(float, shown.split(":"))
            return 3600 * sum(hours) + 60 * minutes + seconds
        scores = [float(part.partition(" ± ")[0]) for part in shown.split(" / ")]
    except ValueError:
        return None
    return sum(scores) / len(scores)


def count(value: float | None) -> Cell:
    """Returns a cell with a whole number."""
    if value is None or math.isnan(value):
        return Cell("")
    return Cell(f"{value:,.0f}", float(value))


def score(mean: float | None, sd: float | None = None, note: str = "") -> Cell:
    """Returns a cell with a score (0 to 100) and its standard deviation."""
    if mean is None or math.isnan(mean):
        return Cell("", None, note)
    return Cell(f"{mean:.1f}" + (f" ± {sd:.1f}" if sd is not None else ""), mean, note)


def point(value: Point | None) -> Cell:
    """Returns a cell with an average over seeds; an incomplete one says so."""
    if value is None:
        return Cell("")
    if not value.seeds:
        return Cell("", None, "no seed has every task: not averaged")
    left_out = "1 seed" if value.incomplete == 1 else f"{value.incomplete} seeds"
    note = f"{left_out} left out, for lack of a result" if value.incomplete else ""
    return score(value.mean, value.sd, note)


def difference(one: Point | None, other: Point | None) -> Cell:
    """Returns a cell with how much higher the mean of one point is than that of the other."""
    if one is None or other is None:
        return Cell("")
    value = one.mean - other.mean
    return Cell(f"{value:+.1f}", value)


def duration(seconds: float | None) -> Cell:
    """Returns a cell with a time as h:mm:ss or m:ss."""
    if seconds is None or math.isnan(seconds):
        return Cell("")
    if seconds < 60:
        return Cell(f"{seconds:.1f} s", seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return Cell(
        f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}", float(seconds)
    )


def milliseconds(seconds: float | None) -> Cell:
    """Returns a cell with a short time in milliseconds."""
    return Cell("") if seconds is None else Cell(f"{1000 * seconds:,.1f}", seconds)


def mebibytes(size: float | None) -> Cell:
    """Returns a cell with a number of bytes in MiB."""
    return Cell("") if size is None else Cell(f"{size / 2**20:,.1f}", float(size))
