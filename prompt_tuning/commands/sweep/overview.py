"""What `prompt-tuning sweep` says before it runs anything: the cells by their state, and what is left costs."""

import shlex
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.commands.sweep import progress
from prompt_tuning.commands.sweep.progress import MISSING, WAITING, Session
from prompt_tuning.commands.sweep.results import Row, latest
from prompt_tuning.commands.sweep.row_form import DONE, FAILED
from prompt_tuning.commands.sweep.sweep import Cell

_STATES = (DONE, FAILED, MISSING, WAITING)
_SIZE, _METHOD = "size", "method"


def text(session: Session, rows: Sequence[Row], jobs: int | None = None) -> str:
    """Returns the plan of a session.

    Args:
      session: Cells and folders.
      rows: All rows of the table.
      jobs: Workers that the time of what is missing is shared among; None where others decide.
    """
    states = progress.states(session, rows)
    lines = _table(states)
    counted = latest(rows)
    for cell, state in states:
        if state == FAILED:
            row = counted[cell.row_key]
            lines.append(f"failed: {cell.sweep} {cell.label}: {row['error']} (log: {row['log']})")
    if any(state == FAILED for _, state in states):
        lines.append("Failed cells run again with --retry_failed.")
    left = [cell for cell, state in states if state in (MISSING, WAITING)]
    if left:
        lines.append(_time_left(left, list(counted.values()), jobs))
    return "\n".join(lines)


def commands(session: Session, rows: Sequence[Row]) -> str:
    """Returns a shell line for each cell that is missing, which runs it and adds its row.

    A training run is a command of its own, which any scheduler may start on as many processes as it takes; the second
    command of its line takes up what the first has left and appends the row.
    """
    lines = []
    for cell, state in progress.states(session, rows):
        if state not in (MISSING, WAITING):
            continue
        waits = " (when its members are done)" if state == WAITING else ""
        # What follows a line break would be a command of the shell.
        label = " ".join(cell.label.splitlines())
        lines.append(f"# {cell.sweep} {label}{waits}")
        words = [session.place.cell_command(cell)]
        if cell.command == "train":
            words.insert(0, session.place.command(cell))
        lines.append(" && ".join(shlex.join(line) for line in words))
    return "\n".join(lines)


def on_topology(cells: Sequence[Cell], topology: str, measure: Callable[..., Any]) -> Iterator[str]:
    """Yields what the compiler says of one training cell of each size and method on a TPU slice, a line each.

    Args:
      cells: Cells that are left.
      topology: Name of the slice.
      measure: (cell, topology) -> `plan.figures.Figures`.
    """
    groups: dict[tuple[str | None, ...], list[Cell]] = {}
    for cell in cells:
        if cell.command == "train":
            groups.setdefault(_kind(cell.axes), []).append(cell)
    yield f"On {topology}, by the TPU compiler (times are roofline estimates, of updates alone):"
    for kind, members in groups.items():
        figures = measure(members[0], topology)
        name = " ".join(filter(None, kind)) or members[0].sweep
        if not figures.fits:
            yield f"  {name}: does not fit"
            continue
        cost = "no estimate of its time"
        if figures.chip_hours is not None:
            total = figures.chip_hours * len(members)
            cost = f"{figures.hours:.2g} h a cell, {total:.2g} chip hours for {len(members)}"
        yield f"  {name}: {figures.peak_bytes_per_core / 2**30:.1f} GiB a core, {cost}"


def _table(states: Sequence[tuple[Cell, str]]) -> list[str]:
    """A line for each sweep, and one for all."""
    counts: dict[str, Counter[str]] = {}
    for cell, state in states:
        counts.setdefault(cell.sweep, Counter())[state] += 1
    if len(counts) > 1:
        counts["all"] = sum(counts.values(), Counter())
    width = max(map(len, counts))
    lines = [f"{'':<{width}}  cells  " + "  ".join(f"{state:>7}" for state in _STATES)]
    for name, count in counts.items():
        numbers = "  ".join(f"{count[state]:>7}" for state in _STATES)
        lines.append(f"{name:<{width}}  {count.total():>5}  {numbers}")
    return lines


def _kind(axes: Mapping[str, str]) -> tuple[str | None, str | None]:
    """What the time of a cell depends on most."""
    return axes.get(_SIZE), axes.get(_METHOD)


def _time_left(left: Sequence[Cell], rows: Sequence[Row], jobs: int | None) -> str:
    """An estimate from the cells of the same size and method that were measured."""
    measured: dict[tuple[str | None, ...], list[float]] = {}
    for row in rows:
        if row["status"] == DONE and row["seconds"] is not None:
            measured.setdefault(_kind(row["axes"]), []).append(row["seconds"])
    # Sweeps that share a run wait for it once.
    runs = list({cell.key: cell for cell in left}.values())
    known = [statistics.mean(measured[k]) for c in runs if (k := _kind(c.axes)) in measured]
    text = f"Left: {len(left)} cells, which are {len(runs)} runs"
    if not known:
        return f"{text}; none of their size and method has been timed yet."
    hours = sum(known) / 3600 / (jobs or 1)
    shared = f" with --jobs={jobs}" if jobs else " one after another"
    unknown = len(runs) - len(known)
    more = f"; {unknown} more are of sizes and methods not timed yet" if unknown else ""
    return f"{text}: about {hours:.2f} h{shared} for {len(known)} (an estimate, from cells that are done){more}."
