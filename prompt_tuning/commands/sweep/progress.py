"""What of a sweep is done, failed, in work or open, and which cell is next."""

import dataclasses
import shlex
from collections.abc import Sequence

from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.results import Row, Table, latest
from prompt_tuning.commands.sweep.row_form import DONE
from prompt_tuning.commands.sweep.sweep import Cell

MISSING, WAITING = "missing", "waiting"


@dataclasses.dataclass(frozen=True)
class Session:
    """What one start of a sweep is to do.

    Attributes:
      place: Folders.
      cells: All cells.
      num_forgotten: How many rows there were when cells that had failed by then were given another try; else 0.
      only: Key of the one cell to run; None for all.
    """

    place: Place
    cells: tuple[Cell, ...]
    num_forgotten: int = 0
    only: str | None = None


def begin(place: Place, cells: Sequence[Cell], *, retry_failed: bool) -> Session:
    """Returns a session, after giving rows to cells that another sweep of this folder has finished.

    Args:
      place: Folders.
      cells: All cells.
      retry_failed: Whether cells that failed are to run again.
    """
    table = Table(place.directory)
    with table.locked():
        rows = table.read()
        _copy_shared(table, place, rows, cells)
    return Session(place, tuple(cells), len(rows) if retry_failed else 0)


def states(session: Session, rows: Sequence[Row]) -> list[tuple[Cell, str]]:
    """Returns every cell with its state: `DONE`, `FAILED`, `WAITING` (for the members of an ensemble) or `MISSING`."""
    # Rows are only ever added, so a place in the table tells an old failure from one of this start.
    forgotten = session.num_forgotten
    fresh = [row for n, row in enumerate(rows) if n >= forgotten or row["status"] == DONE]
    counted = latest(fresh)
    found = {
        cell.row_key: counted[cell.row_key]["status"] if cell.row_key in counted else MISSING
        for cell in session.cells
    }
    for cell in session.cells:
        is_ready = all(found[cell.sweep, key] == DONE for key in cell.members)
        if found[cell.row_key] == MISSING and not is_ready:
            found[cell.row_key] = WAITING
    return [(cell, found[cell.row_key]) for cell in session.cells]


def take_next(session: Session, claims: Claims) -> Cell | None:
    """Claims and returns the next cell to run; None if nothing is left that nobody has in his hands."""
    table = Table(session.place.directory)
    with table.locked():
        rows = table.read()
        _copy_shared(table, session.place, rows, session.cells)
        for cell, state in states(session, rows):
            is_asked_for = session.only in (None, cell.key)
            if is_asked_for and state == MISSING and claims.take(cell.key):
                return cell
    return None


def record(session: Session, cell: Cell, row: Row) -> None:
    """Appends the row of a cell, unless another writer has finished the same cell meanwhile."""
    table = Table(session.place.directory)
    with table.locked():
        counted = latest(table.read()).get(cell.row_key)
        if counted is None or counted["status"] != DONE:
            table.append(row)


def _copy_shared(table: Table, place: Place, rows: list[Row], cells: Sequence[Cell]) -> None:
    """Adds rows for cells whose run another sweep has finished: the same settings are not run twice."""
    counted = latest(rows)
    done = {row["key"]: row for row in counted.values() if row["status"] == DONE}
    for cell in cells:
        row = done.get(cell.key)
        if row is None or counted.get(cell.row_key, {}).get("status") == DONE:
            continue
        own = {"sweep": cell.sweep, "title": cell.title, "scale": cell.scale, "cell": cell.label}
        command = shlex.join(place.sweep_command)
        copy = {**row, **own, "axes": dict(cell.axes), "sweep_command": command}
        table.append(copy)
        rows.append(copy)
        counted[cell.row_key] = copy
