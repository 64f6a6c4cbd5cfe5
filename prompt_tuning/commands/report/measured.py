"""The tables of measured numbers: what a section shows of each of its sweeps."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence

from prompt_tuning.commands.report import published
from prompt_tuning.commands.report.averages import Point, further_points, points, times_to_mean
from prompt_tuning.commands.report.rows import Key, Row, Sweep, key_of
from prompt_tuning.commands.report.tables import (
    Cell,
    Table,
    count,
    difference,
    duration,
    label,
    mebibytes,
    milliseconds,
    point,
    score,
    text,
)

# Stands for the task that a run was trained on.
_OWN = "the same"


def points_table(sweep: Sweep, axis: str) -> Table | None:
    """Returns the numbers of a panel, with a column for each task."""
    by = [name for name in ("size", axis) if name in sweep.axes]
    tasks = sweep.values("task")
    rows = _average_cells(sweep, by, tasks)
    # Headings have to be short: what all tasks begin with, up to the last `_`, is above the table.
    prefix = os.path.commonprefix(tasks) if len(tasks) > 1 else ""
    prefix = prefix[: prefix.rfind("_") + 1]
    columns = (*by, "parameters", "score", "seeds", *(task.removeprefix(prefix) for task in tasks))
    heading = f"{sweep.name}, {sweep.scale_text}: mean ± standard deviation over seeds"
    if prefix:
        heading += f"; tasks {prefix}…"
    return Table(heading, columns, rows) if rows else None


def scores_table(sweep: Sweep, *left_out: str) -> Table:
    """Returns the scores of a sweep, a row for each combination of axes.

    Args:
      sweep: The cells.
      *left_out: Axes to average over, besides the seed.
    """
    by = sweep.varying("seed", *left_out)
    rows = _average_cells(sweep, by)
    return Table(_caption(sweep, "seed", *left_out), (*by, "parameters", "score", "seeds"), rows)


def best_first(sweep: Sweep) -> Table:
    """Returns the scores of a sweep, averaged over tasks, best first; those of no complete seed last."""
    table = scores_table(sweep, "task")
    column = table.columns.index("score")

    def place(row: Sequence[Cell]) -> float:
        value = row[column].sort
        return math.inf if value is None else -value

    return Table(table.caption, table.columns, sorted(table.rows, key=place))


def _average_cells(sweep: Sweep, by: Sequence[str], tasks: Sequence[str] = ()) -> list[list[Cell]]:
    """The averages by some axes: the values of these, parameters, score, number of seeds, score of each task."""
    by_task = points(sweep, (*by, "task")) if tasks else {}
    return [
        [
            *_values(by, key),
            count(p.total_params),
            point(p),
            count(p.seeds),
            *(point(by_task.get((*key, task))) for task in tasks),
        ]
        for key, p in points(sweep, by).items()
    ]


def _values(by: Sequence[str], key: Key) -> list[Cell]:
    """The values of some axes; a key may have more behind them."""
    return [text(label(axis, value)) for axis, value in zip(by, key, strict=False)]


def costs_table(sweep: Sweep) -> Table:
    """Returns what is trained, what it scores, and what an update costs, a row for each size and method."""
    others = sweep.varying("seed", "task")
    by = [axis for axis in sweep.axes if axis == "method" or axis in others]
    scores, rows = points(sweep, by), []
    for key, cells in sweep.groups(by).items():
        per_update = [
            cell["train_seconds"] / cell["steps"]
            for cell in cells
            if cell.get("steps") and cell.get("train_seconds") is not None
        ]
        row = [
            *_values(by, key),
            count(_largest(cells, "trainable_params")),
            point(scores[key]),
            count(scores[key].seeds),
            milliseconds(statistics.median(per_update) if per_update else None),
            mebibytes(_largest(cells, "update_bytes")),
        ]
        rows.append(row)
    columns = ("trained parameters", "score", "seeds", "ms an update", "MiB of an update")
    caption = _caption(sweep, "seed", "task", "method")
    how = "time the median over runs, memory by the compiler"
    return Table(f"{caption}: {how}", (*by, *columns), rows)


def _largest(cells: Sequence[Row], name: str) -> float | None:
    """The largest value of a field; None if no cell has it."""
    return max((cell[name] for cell in cells if cell.get(name) is not None), default=None)


def times_table(sweep: Sweep) -> Table:
    """Returns the times to within 1 % of the mean score, a row for each configuration."""
    by = sweep.varying("seed")
    scores = points(sweep, by)
    rows = [
        [
            *_values(by, key),
            point(scores[key]),
            duration(time.mean),
            duration(time.sd),
            _of_all(time),
        ]
        for key, time in times_to_mean(sweep, by).items()
    ]
    columns = (*by, "score", "time", "± time", "runs that reach it")
    return Table(_caption(sweep, "seed"), columns, rows)


def _of_all(time: Point) -> Cell:
    """How many runs came close to the mean score, of all."""
    num_runs = time.seeds + time.incomplete
    return Cell(f"{time.seeds} of {num_runs}", time.seeds / num_runs)


def transfer_table(sweep: Sweep) -> Table:
    """Returns what runs score on the task they were trained on and on further ones: metrics by methods."""
    others = sweep.varying("seed", "method")
    methods = sweep.values("method")
    by = [*others, "method"] if methods else others
    rows: dict[Key, dict[str, Point]] = {}
    for key, found in further_points(sweep, by, _metrics_of).items():
        method = key[len(others)] if methods else ""
        rows.setdefault((*key[: len(others)], *key[len(by) :]), {})[method] = found
    compared = {"model", "prompt"} <= set(methods)
    cells = [
        [
            *map(text, key),
            *(point(row.get(method)) for method in methods or [""]),
            *([difference(row.get("prompt"), row.get("model"))] if compared else []),
        ]
        for key, row in rows.items()
    ]
    names = [label("method", method) for method in methods] or ["score"]
    columns = (*others, "evaluated on", "metric", *names)
    columns += ("prompt less model tuning",) if compared else ()
    return Table(_caption(sweep, "seed", "method"), columns, cells)


def _metrics_of(cell: Row) -> dict[Key, float]:
    """Every metric of a cell on its own task and on further ones."""
    scored = {_OWN: cell.get("metrics") or {}, **(cell.get("evaluations") or {})}
    return {
        (task, name): value
        for task, metrics in scored.items()
        for name, value in metrics.items()
        if value is not None
    }


def ensembles_table(sweep: Sweep) -> Table | None:
    """Returns the ensembles of a sweep, and the mean over the tasks of each size."""
    kinds = ("average", "best", "ensemble")
    by = sweep.varying("seed")
    members = sweep.groups(by)
    votes = {key_of(cell, by): cell.get("metrics") or {} for cell in sweep.ensembles}
    rows, by_others = [], {}
    for key in sweep.ordered(by, votes):
        values = [votes[key].get(kind) for kind in kinds]
        rows.append([*_values(by, key), count(len(members.get(key, []))), *map(score, values)])
        others = tuple(
            "mean of {} tasks" if a == "task" else v for a, v in zip(by, key, strict=True)
        )
        by_others.setdefault(others, []).append(values)
    if not rows:
        return None
    for others, found in by_others.items() if "task" in by else ():
        columns = zip(*found, strict=True)
        means = [None if None in column else sum(column) / len(found) for column in columns]
        names = _values(by, tuple(name.format(len(found)) for name in others))
        rows.append([*names, Cell(""), *map(score, means)])
    return Table(_caption(sweep, "seed"), (*by, "prompts", *kinds), rows)


def counts_table(sweep: Sweep) -> Table:
    """Returns what was counted; beside it the paper's numbers where the model is one of the paper's."""
    by = [axis for axis in sweep.axes if axis in ("size", "length", *sweep.varying())]
    counted = {key: cells[0] for key, cells in sweep.groups(by).items()}
    paper = {key: _paper_counts(sweep, dict(zip(by, key, strict=True))) for key in counted}
    has_paper = any(paper.values())
    rows = []
    for key, cell in counted.items():
        total, trainable = cell.get("total_params"), cell.get("trainable_params")
        if not total or trainable is None:
            continue
        percent = 100 * trainable / total
        row = [*_values(by, key), count(trainable), count(total), Cell(f"{percent:.5f}", percent)]
        if known := paper[key]:
            is_equal = (trainable, total) == (known["trainable"].sort, known["total"].sort)
            row += [known["trainable"], known["total"], Cell("yes" if is_equal else "no")]
        elif has_paper:
            row += [Cell("")] * 3
        rows.append(row)
    columns = [*by, "trainable", "total", "trainable, %"]
    compared = ["paper: trainable", "paper: total", "equal"] if has_paper else []
    return Table(
        f"Counted, {sweep.scale_text}",
        [*columns, *compared],
        rows,
        published_columns=(len(columns), len(columns) + 1) if has_paper else (),
    )


def _paper_counts(sweep: Sweep, axes: Mapping[str, str]) -> dict[str, Cell] | None:
    """The paper's numbers for a cell; None where it has none."""
    lengths = {str(length): length for length in published.LENGTHS}
    size, length = axes.get("size", ""), axes.get("length", "")
    if sweep.scale != "full" or size not in published.SIZES or length not in lengths:
        return None
    return published.table_4(size, lengths[length])


def cells_table(sweep: Sweep) -> Table:
    """Returns every cell with what it ran."""
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


def _caption(sweep: Sweep, *left_out: str) -> str:
    """The caption of a table, with the axes that have one value."""
    hidden = (*sweep.varying(*left_out), *left_out, "seed")
    constant = [
        f"{axis} {sweep.values(axis)[0]}"
        for axis in sweep.axes
        if axis not in hidden and sweep.values(axis)
    ]
    return ", ".join([f"Measured, {sweep.scale_text}", *constant])
