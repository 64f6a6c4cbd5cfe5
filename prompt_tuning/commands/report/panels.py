"""Panels of scores over the size of the model: measured ones, and the published one."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.commands.report import published
from prompt_tuning.commands.report.averages import Point, points
from prompt_tuning.commands.report.figures import MEASURED, OTHER, Panel, Series, slug
from prompt_tuning.commands.report.rows import METHODS, Sweep
from prompt_tuning.commands.report.tables import Cell, Table, label


def measured(sweeps: Sequence[Sweep], section: Mapping[str, Any], how: str = "") -> Panel | None:
    """Returns the panel of scores over size, a line for each value of the section's axis.

    Args:
      sweeps: Sweeps of one scale whose lines belong together; the first gives the panel its name.
      section: Of `published.PAPER`.
      how: How it was measured, behind the title of the panel.

    Returns:
      The panel; None if no sweep has both axes and a complete point.
    """
    axis, first = section["axis"], sweeps[0]
    lines: dict[str, dict[str, Point]] = {}
    for sweep in sweeps:
        if {"size", axis} <= set(sweep.axes):
            for (value, size), point in points(sweep, (axis, "size")).items():
                if not math.isnan(point.mean) and point.total_params > 0:
                    lines.setdefault(value, {})[size] = point
    if not lines:
        return None
    params: dict[str, float] = {}
    for line in lines.values():
        for size, point in line.items():
            # Without a prompt, or with the shortest one.
            params[size] = min(point.total_params, params.get(size, math.inf))
    counts = sorted({point.seeds for line in lines.values() for point in line.values()})
    num_tasks = len(first.values("task"))
    return Panel(
        name=slug(".".join(filter(None, (first.name, first.scale)))),
        title=section["title"],
        subtitle=f"measured, {first.scale_text}{how}",
        y_label=f"dev score, mean of {num_tasks} tasks" if num_tasks > 1 else "dev score",
        series=tuple(
            Series(
                label=label(axis, value),
                x=[point.total_params for point in line.values()],
                y=[point.mean for point in line.values()],
                sd=[point.sd for point in line.values()],
                colour=list(METHODS).index(value) if value in METHODS else index,
                kind=MEASURED,
            )
            for index, (value, line) in enumerate(lines.items())
        ),
        ticks=tuple((x, size) for size, x in sorted(params.items(), key=lambda item: item[1])),
        kind=MEASURED,
        legend=section.get("legend", ""),
        caption=f"{' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} seeds a point."
        if counts != [1]
        else "One seed, so no error bars.",
    )


def of_table(section: Mapping[str, Any], table: Table) -> Panel:
    """Returns the panel of a section's published table.

    Args:
      section: Of `published.PAPER`; its `panel` says which rows are drawn.
      table: The table: a column for each size of T5 1.1 behind the first.
    """
    panel = section["panel"]
    return Panel(
        name=f"{section['name']}.published",
        title=section["title"],
        subtitle=panel["subtitle"],
        y_label=panel["y_label"],
        series=tuple(_published_line(line, table.rows[line["row"]]) for line in panel["lines"]),
        ticks=tuple((size["frozen"], size["label"]) for size in published.SIZES.values()),
        kind=OTHER,
        caption=panel["caption"],
    )


def _published_line(line: Mapping[str, Any], row: Sequence[Cell]) -> Series:
    """A line of a published panel, without the sizes that have no number."""
    sizes = zip(published.SIZES.values(), row[1:], strict=True)
    known = [(size["frozen"], cell) for size, cell in sizes if cell.sort is not None]
    deviations = [cell.text.partition(" ± ")[2] for _, cell in known]
    return Series(
        label=line["label"],
        x=[params for params, _ in known],
        y=[cell.sort for _, cell in known if cell.sort is not None],
        sd=[float(deviation) if deviation else None for deviation in deviations],
        colour=list(METHODS).index(line["method"]),
        kind=line["kind"],
    )
