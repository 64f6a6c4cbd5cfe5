"""What of a sweep is done, failed, in work or open, and which cell is next."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.results import DONE, FAILED, Row, Table, latest
from prompt_tuning.commands.sweep.sweep import Cell

MISSING, WAITING = "missing", "waiting"


@dataclasses.dataclass(frozen=True)
class Session:
    """What one start of a sweep is to do.

    Attributes:
      place: Folders.
      cells: All cells.
      retried: Cells that failed before and are to run again: sweep and key -> how often they have failed so far.
      only: Key of the one cell to run; None for all.
    """

    place: Place
    cells: tuple[Cell, ...]
    retried: Mapping[tuple[str, str], int]
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
    failed = [key for key, row in latest(rows).items() if row["status"] == FAILED]
    tries = {key: _failures(rows, key) for key in failed} if retry_failed else {}
    return Session(place, tuple(cells), tries)


def announce(session: Session) -> None:
    """Writes down which cells the session's sweeps have: rows of others are not of these settings."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    for cell in session.cells:
        keys = cells.setdefault(cell.sweep, {}).setdefault(cell.scale or "", {})
        keys[cell.key] = cell.label
    Table(session.place.directory).write_cells(cells)


def states(session: Session, rows: Sequence[Row]) -> list[tuple[Cell, str]]:
    """Returns every cell with its state: `DONE`, `FAILED`, `WAITING` (for the members of an ensemble) or `MISSING`."""
    counted = latest(rows)
    found = {cell.row_key: _own_state(session, cell, rows, counted) for cell in session.cells}
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


def _own_state(
    session: Session, cell: Cell, rows: Sequence[Row], counted: Mapping[tuple[str, str], Row]
) -> str:
    """The state of a cell by its own rows."""
    row = counted.get(cell.row_key)
    if row is None:
        return MISSING
    if row["status"] == DONE:
        return DONE
    tries = session.retried.get(cell.row_key)
    return MISSING if tries is not None and _failures(rows, cell.row_key) <= tries else FAILED


def _failures(rows: Sequence[Row], row_key: tuple[str, str]) -> int:
    """How often a cell has failed."""
    return sum((row["sweep"], row["key"]) == row_key and row["status"] == FAILED for row in rows)


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
