"""Reads the rows of sweeps, one a cell, and says which cells are done, failed or missing."""

import itertools
import math
import pathlib
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from prompt_tuning.commands.sweep.results import CELLS, TABLE, parse, read_cells
from prompt_tuning.commands.sweep.row_form import DONE, wrong_parts
from prompt_tuning.commands.sweep.sweep import ENSEMBLE
from prompt_tuning.errors import DataError

_REQUIRED = ("sweep", "scale", "cell", "axes", "status")
_NEVER_NONE = ("cell", "axes")
# Values of the axis `method`, as they are written.
METHODS = {
    "prompt": "Prompt tuning",
    "model": "Model tuning",
    "multitask": "Multi-task model tuning",
    "text": "Text prompt",
    "frozen": "Frozen model, no prompt",
    "spot": "SPoT",
    "ia3": "(IA)3",
    "lora": "LoRA",
    "prefix": "Prefix tuning",
    "deep_prompt": "Deep prompts",
    "residual": "Residual prompt",
    "dept": "DePT",
    "shared_prompt": "One prompt for all tasks",
    "multitask_prompt": "Multitask prompt",
    "mpt": "MPT",
}
# Values in the order of legends; sizes follow their parameters, numbers their value, other text the alphabet.
_ORDERS = {
    "method": tuple(METHODS),
    "init": ("random_uniform", "sampled_vocab", "class_label"),
    "objective": ("span_corruption", "span_corruption_sentinel", "lm_adaptation"),
}

# A row as a sweep wrote it; what does not apply to a cell is None or missing.
Row = Mapping[str, Any]
# The values of some axes.
Key = tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """All cells of one sweep at one scale.

    Args:
      name: Name of the sweep, e.g. `figure_3a`.
      scale: `full`, `mini`, `t5gemma`, or "" for a sweep without one.
      axes: Names of the axes, in the order of the sweep.
      cells: Its rows, one a cell.
      missing: Cells without a row: of those that the sweep had when it was last started, or, where its folder does not
        tell, of the product of the values seen with each method.
    """

    name: str
    scale: str
    axes: tuple[str, ...]
    cells: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def scale_text(self) -> str:
        """The scale in words."""
        return f"{self.scale} scale" if self.scale else "no scale"

    @property
    def done(self) -> list[Row]:
        """The cells that have a result."""
        return [cell for cell in self.cells if cell["status"] == DONE]

    @property
    def failed(self) -> list[Row]:
        """The cells whose last run failed."""
        return [cell for cell in self.cells if cell["status"] != DONE]

    @property
    def runs(self) -> list[Row]:
        """The cells that are runs of their own, done or not: all but ensembles of others."""
        return [cell for cell in self.cells if not _is_ensemble(cell)]

    @property
    def ensembles(self) -> list[Row]:
        """The cells with a result in which the prompts of others vote."""
        return [cell for cell in self.done if _is_ensemble(cell)]

    def known(self, name: str) -> list[str]:
        """Returns the different values that rows have of a field, as text, sorted; without empty ones."""
        values = (cell.get(name) for cell in self.cells)
        texts = {
            ", ".join(f"{k} {v}" for k, v in sorted(value.items()))
            if isinstance(value, Mapping)
            else str(value)
            for value in values
            if value
        }
        return sorted(texts)

    def values(self, axis: str) -> list[str]:
        """Returns the values of an axis that runs have, in the order of a legend; [] if the sweep lacks the axis."""
        if axis not in self.axes:
            return []
        values = sorted({cell["axes"][axis] for cell in self.runs})
        if axis == "size":
            return sorted(values, key=self._params_of)
        if axis in _ORDERS:
            order = _ORDERS[axis]
            return sorted(values, key=lambda v: order.index(v) if v in order else len(order))
        return sorted(values, key=_by_number)

    def varying(self, *left_out: str) -> list[str]:
        """Returns the axes that tell the runs' rows of a table apart: `size`, and those with several values."""
        return [
            axis
            for axis in self.axes
            if axis not in left_out and (axis == "size" or len(self.values(axis)) > 1)
        ]

    def ordered(self, axes: Sequence[str], keys: Iterable[Key]) -> list[Key]:
        """Returns keys, which begin with a value of each of `axes`, in the order of the values."""
        places = [{value: i for i, value in enumerate(self.values(axis))} for axis in axes]
        return sorted(
            keys, key=lambda key: [p.get(v, len(p)) for p, v in zip(places, key, strict=False)]
        )

    def groups(self, axes: Sequence[str], *, done: bool = True) -> dict[Key, list[Row]]:
        """Returns the runs by their values of some axes, in the order of these.

        Args:
          axes: The axes.
          done: Leaves out what has no result.
        """
        found: dict[Key, list[Row]] = {}
        for cell in self.runs:
            if cell["status"] == DONE or not done:
                found.setdefault(key_of(cell, axes), []).append(cell)
        return {key: found[key] for key in self.ordered(axes, found)}

    def _params_of(self, size: str) -> float:
        """Parameters of the models of a size; infinite if no row tells."""
        known = [
            cell["total_params"]
            for cell in self.runs
            if cell["axes"]["size"] == size and cell.get("total_params")
        ]
        return statistics.median(known) if known else math.inf


@dataclass(frozen=True)
class Results:
    """What a report is made of.

    Args:
      sweeps: Every sweep at every scale, by name and scale.
      notes: What is wrong with the files, for the reader of the report.
    """

    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...]

    def find(self, *names: str) -> list[Sweep]:
        """Returns the sweeps of these names."""
        return [sweep for sweep in self.sweeps if sweep.name in names]


def key_of(cell: Row, axes: Sequence[str]) -> Key:
    """Returns a cell's values of some axes."""
    return tuple(cell["axes"][axis] for axis in axes)


def read(paths: Sequence[str]) -> Results:
    """Reads results; of several rows of a cell the first that is done counts, else the last one, as in a sweep.

    Rows of settings that a sweep had before it was started again with others are left out, where its folder tells.

    Args:
      paths: Folders that hold `results.jsonl`, themselves or in the folders directly below, or such files.

    Returns:
      The cells by sweep and scale.

    Raises:
      DataError: If there is no file or no row, or a row is not one of a sweep.
    """
    notes: list[str] = []
    rows: dict[tuple[str, str, str], Row] = {}
    planned: dict[tuple[str, str], dict[str, str]] = {}
    changed: set[str] = set()
    for file in itertools.chain.from_iterable(_files(path) for path in paths):
        plan = read_cells(pathlib.Path(file.parent / CELLS))
        for name, scales in plan.items():
            for scale, keys in scales.items():
                planned.setdefault((name, scale), {}).update(keys)
        found = list(_read_file(file, notes))
        current = [row for row in found if _is_current(row, plan)]
        if len(current) < len(found):
            notes.append(
                f"{file}: {len(found) - len(current)} rows of other settings than those that their sweeps have now are"
                " left out."
            )
        for row in current:
            place = (row["sweep"], row["scale"] or "", row["cell"])
            before = rows.get(place)
            if before is not None and before["status"] == DONE:
                if before.get("key") == row.get("key"):
                    continue
                changed.add(f"{row['sweep']} {row['cell']}")
            rows[place] = row
    if not rows:
        raise DataError(
            "The results hold no row",
            # Why lines were left out, where there were some.
            got="; ".join([", ".join(paths), *notes[:3]]),
            expected=f"at least one row in {TABLE}",
            fix="run `prompt-tuning sweep` first",
        )
    if changed:
        notes.append(
            f"{len(changed)} cells were done with another config before, whose results are left out:"
            f" {'; '.join(sorted(changed))}."
        )
    groups: dict[tuple[str, str], list[Row]] = {}
    for (name, scale, _), row in sorted(rows.items()):
        groups.setdefault((name, scale), []).append(row)
    sweeps = (_sweep(*place, group, planned.get(place)) for place, group in groups.items())
    return Results(tuple(sweeps), tuple(notes))


def _files(path: str) -> list[epath.Path]:
    """The result files that a path names."""
    folder = epath.Path(path)
    if folder.is_file():
        return [folder]
    own = folder / TABLE
    found = [own] if own.exists() else sorted(folder.glob(f"*/{TABLE}"))
    if not found:
        raise DataError(
            "No results here",
            got=str(path),
            expected=f"a folder with {TABLE}, or with folders that have one",
            fix="name the --output_dir of `prompt-tuning sweep`",
        )
    return found


def _is_current(row: Row, plan: Mapping[str, Mapping[str, Mapping[str, str]]]) -> bool:
    """Whether a row is of a cell that its sweep has now, as far as the folder tells: sweep -> scale -> keys."""
    keys = plan.get(row["sweep"], {}).get(row["scale"] or "")
    return keys is None or row.get("key") in keys


def _read_file(file: epath.Path, notes: list[str]) -> Iterable[Row]:
    """Yields the rows of one file; lines that a writer did not finish, or did not write, are noted."""
    for number, row in parse(file.read_bytes().decode(errors="replace")):
        if row is None:
            notes.append(f"{file}, line {number} is torn and was left out.")
            continue
        lacking = [key for key in _REQUIRED if key not in row] if isinstance(row, dict) else ["all"]
        if lacking:
            raise DataError(
                f"A row of results is not one of a sweep ({file}, line {number})",
                got=f"no {', '.join(lacking)}",
                expected=f"at least {', '.join(_REQUIRED)}",
                fix="name the --output_dir of `prompt-tuning sweep`",
            )
        if fields := wrong_parts(row) or [n for n in _NEVER_NONE if row[n] is None]:
            wrong = ", ".join(fields)
            notes.append(f"{file}, line {number} holds no {wrong} of a sweep and was left out.")
            continue
        yield row


def _sweep(
    name: str, scale: str, rows: list[Row], planned: Mapping[str, str] | None = None
) -> Sweep:
    """Gathers the rows of one sweep at one scale.

    Args:
      name: Its name.
      scale: Its scale.
      rows: Its rows.
      planned: Its cells, key -> label; None if nothing tells.
    """
    axes = tuple(dict.fromkeys(axis for row in rows for axis in row["axes"]))
    # A sweep that got another axis later leaves rows without it.
    cells = tuple(
        {**row, "axes": {axis: str(row["axes"].get(axis, "")) for axis in axes}} for row in rows
    )
    if planned is None:
        return Sweep(name, scale, axes, cells, tuple(_missing(cells, axes)))
    there = {row.get("key") for row in rows}
    missing = tuple(label for key, label in planned.items() if key not in there)
    return Sweep(name, scale, axes, cells, missing)


def _missing(cells: Iterable[Row], axes: Sequence[str]) -> Iterable[str]:
    """Yields the cells without a row: those of the product of all values that each method occurs with."""
    # Methods differ in their axes: what is not trained has no seeds.
    groups: dict[tuple[bool, str], set[Key]] = {}
    for cell in cells:
        kind = (_is_ensemble(cell), cell["axes"].get("method", ""))
        groups.setdefault(kind, set()).add(key_of(cell, axes))
    for there in groups.values():
        for key in itertools.product(*(sorted(set(values)) for values in zip(*there, strict=True))):
            if key not in there:
                yield ",".join(f"{axis}={value}" for axis, value in zip(axes, key, strict=True))


def _is_ensemble(cell: Row) -> bool:
    """Whether a cell is an ensemble of others."""
    return ENSEMBLE in cell["axes"].values()


def _by_number(value: str) -> tuple[float, str]:
    """Sorts numbers, percentages too, by value, before all other text."""
    found = re.fullmatch(r"([\d.]+) ?%?", value)
    return (float(found[1]) if found else math.inf), value
