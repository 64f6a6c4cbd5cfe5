"""What the report consists of: for each experiment of the paper, what was measured beside what was published."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from prompt_tuning.commands.report.figures import Panel
from prompt_tuning.commands.report.rows import Sweep
from prompt_tuning.commands.report.tables import Cell, Table, count, duration, score, text

METHOD_LABELS = {
    "prompt": "Prompt tuning",
    "model": "Model tuning",
    "multitask": "Multi-task model tuning",
    "text": "Text prompt",
    "frozen": "Frozen model, no prompt",
    "spot": "SPoT",
}


@dataclass(frozen=True)
class Made:
    """Where the measured numbers of one sweep at one scale come from.

    Args:
      sweep: Its cells.
      commands: Commands that made them.
      devices: Devices they ran on.
      versions: Versions of the libraries they ran with.
      cells: All cells as a table.
      failed: Cells that failed, with the reason.
      seconds: Training time of all cells. Unit: seconds.
    """

    sweep: Sweep
    commands: tuple[str, ...]
    devices: tuple[str, ...]
    versions: tuple[str, ...]
    cells: Table
    failed: tuple[str, ...]
    seconds: float

    @property
    def total(self) -> int:
        """Cells that the sweep has, missing ones included."""
        return len(self.sweep.cells) + len(self.sweep.missing)


@dataclass(frozen=True)
class Section:
    """One experiment.

    Args:
      name: Name of the sweep.
      title: Heading.
      about: What is compared.
      measured: Panels drawn from the results.
      published: Panels drawn from published numbers.
      tables: Tables of measured numbers.
      published_tables: Tables of published numbers.
      statements: What the paper says in words.
      remarks: What one has to know to read the published numbers.
      made: Where the measured numbers come from.
    """

    name: str
    title: str
    about: str
    measured: tuple[Panel, ...] = ()
    published: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()
    published_tables: tuple[Table, ...] = ()
    statements: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    made: tuple[Made, ...] = field(default=())


def made(sweep: Sweep) -> Made:
    """Returns where the numbers of a sweep come from, failed and missing cells included."""
    commands = {cell.get("sweep_command") for cell in sweep.cells}
    versions = {
        ", ".join(f"{name} {version}" for name, version in sorted(known.items()))
        for known in (cell.get("versions") or {} for cell in sweep.cells)
    }
    return Made(
        sweep=sweep,
        commands=_known(commands),
        devices=_known(cell.get("device") for cell in sweep.cells),
        versions=_known(versions),
        cells=_cells_table(sweep),
        failed=tuple(
            f"{cell['cell']}: {cell.get('error') or 'no reason recorded'}"
            + (f" (log: {cell['log']})" if cell.get("log") else "")
            for cell in sweep.failed
        ),
        seconds=sum(cell.get("train_seconds") or 0.0 for cell in sweep.cells),
    )


def _known(values: Iterable[Any]) -> tuple[str, ...]:
    """The different values that rows have, sorted."""
    return tuple(sorted({str(value) for value in values if value}))


def _cells_table(sweep: Sweep) -> Table:
    """Every cell with what it ran."""
    shown = ("command", "model_dir", "log", "error")
    rows = [
        [
            Cell("show", more="\n".join(f"{k}: {cell[k]}" for k in shown if cell.get(k))),
            *(text(cell["axes"][axis]) for axis in sweep.axes),
            Cell(cell["status"]),
            score(cell.get("score")),
            count(cell.get("best_step")),
            count(cell.get("steps")),
            count(cell.get("trainable_params")),
            duration(cell.get("train_seconds")),
        ]
        for cell in sweep.cells
    ]
    columns = "status", "score", "best step", "steps", "trainable", "training"
    caption = f"All {len(rows)} cells of {sweep.name}, {sweep.scale_text}"
    return Table(caption, ("command", *sweep.axes, *columns), rows)


def caption(sweep: Sweep, *left_out: str) -> str:
    """Returns the caption of a measured table, with the axes that have one value."""
    varying = sweep.varying(*left_out)
    constant = [
        f"{axis} {sweep.values(axis)[0]}"
        for axis in sweep.axes
        if axis not in (*varying, *left_out) and sweep.values(axis) and axis != "seed"
    ]
    return ", ".join([f"Measured, {sweep.scale_text}", *constant])


def label(axis: str, value: str) -> str:
    """Returns how a value of an axis is written."""
    return METHOD_LABELS.get(value, value) if axis == "method" else value


def each(sweeps: Iterable[Sweep], build: Callable[[Sweep], Any]) -> tuple[Any, ...]:
    """Returns what `build` makes of each sweep, without the Nones."""
    return tuple(item for item in map(build, sweeps) if item is not None)
