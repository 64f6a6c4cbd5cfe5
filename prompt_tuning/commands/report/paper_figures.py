"""Figures 1 and 3 of the paper: scores over model size, measured and published in panels of their own."""

import math
import os
from collections.abc import Mapping, Sequence

from prompt_tuning.commands.report import paper_numbers, tables
from prompt_tuning.commands.report.averages import FORMULA, Point, points
from prompt_tuning.commands.report.figures import MEASURED, OTHER, PAPER, Panel, Series
from prompt_tuning.commands.report.rows import Results, Sweep
from prompt_tuning.commands.report.sections import METHOD_LABELS, Section, each, label, made
from prompt_tuning.commands.report.tables import Table

# name -> heading, axis of the lines, what is compared.
FIGURES = {
    "figure_1": (
        "Figure 1: model size and method",
        "method",
        "Scores by the size of the model, for each way to use it.",
    ),
    "figure_3a": (
        "Figure 3a: prompt length",
        "length",
        "Prompts of several lengths. Unit: tokens.",
    ),
    "figure_3b": (
        "Figure 3b: initialisation",
        "init",
        "What the rows of the prompt are before training.",
    ),
    "figure_3c": (
        "Figure 3c: pre-training objective",
        "objective",
        "What the frozen model was trained on last.",
    ),
    "figure_3d": (
        "Figure 3d: LM adaptation",
        "adapt_steps",
        "For how many steps the frozen model was adapted to language modelling.",
    ),
}
FIGURE_1_MULTITASK, FIGURE_1_RANKED = "figure_1_multitask", "figure_1_ranked"
_LEGENDS = {
    "length": "prompt length",
    "init": "initialisation",
    "objective": "pre-training objective",
}
_LEGENDS["adapt_steps"] = "steps of LM adaptation"
_METHODS = ("prompt", "model", "multitask", "text", "frozen", "spot")


def section(name: str, results: Results) -> Section:
    """Returns one of the figures.

    Args:
      name: One of `FIGURES`.
      results: All results; those of other sweeps are passed over.

    Returns:
      The figure's section; it has published numbers also where nothing was measured.
    """
    title, axis, about = FIGURES[name]
    is_first = name == "figure_1"
    # Figure 1 is made of three sweeps: what is tuned on all tasks at once has no axis of tasks, and what ranks labels
    # rather than writes them is a way to evaluate.
    sweeps = results.find(name, FIGURE_1_MULTITASK) if is_first else results.find(name)
    ranked = results.find(FIGURE_1_RANKED) if is_first else []
    by_scale: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        by_scale.setdefault(sweep.scale, []).append(sweep)
    panels = [measured_panel(group, axis, title) for group in by_scale.values()]
    panels += [measured_panel([sweep], axis, title, ", labels ranked") for sweep in ranked]
    return Section(
        name=name,
        title=title,
        about=f"{about} {FORMULA}",
        measured=tuple(panel for panel in panels if panel is not None),
        published=(_published_panel(),) if is_first else (),
        tables=each([*sweeps, *ranked], lambda sweep: points_table(sweep, axis)),
        published_tables=(_published_table(),) if is_first else (),
        statements=paper_numbers.FIGURE_STATEMENTS[name],
        remarks=paper_numbers.FIGURE_1_REMARKS if is_first else (),
        made=each([*sweeps, *ranked], made),
    )


def measured_panel(sweeps: Sequence[Sweep], axis: str, figure: str, how: str = "") -> Panel | None:
    """Returns the panel of scores over size, a line for each value of `axis`.

    Args:
      sweeps: Sweeps of one scale whose lines belong together; the first gives the panel its name.
      axis: Axis of the lines.
      figure: Title of the figure.
      how: How it was measured, behind the title of the panel.

    Returns:
      The panel; None if no sweep has both axes and a complete point.
    """
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
    first = sweeps[0]
    return Panel(
        name=".".join(filter(None, (first.name, first.scale))),
        title=figure,
        subtitle=f"measured, {first.scale_text}{how}",
        y_label=_score_label(first),
        series=tuple(
            _series(
                label(axis, value),
                list(line.values()),
                colour=_METHODS.index(value) if value in _METHODS else index,
                kind=MEASURED,
            )
            for index, (value, line) in enumerate(lines.items())
        ),
        ticks=tuple((x, size) for size, x in sorted(params.items(), key=lambda item: item[1])),
        kind=MEASURED,
        legend=_LEGENDS.get(axis, ""),
        caption=_seeds_of(lines),
    )


def points_table(sweep: Sweep, axis: str) -> Table | None:
    """Returns the numbers of a panel, with a column for each task."""
    by = tuple(name for name in ("size", axis) if name in sweep.axes)
    tasks = sweep.values("task")
    by_task = points(sweep, (*by, "task")) if tasks else {}
    rows = [
        [
            *(tables.text(label(name, value)) for name, value in zip(by, key, strict=True)),
            tables.count(point.total_params),
            tables.point(point),
            tables.count(point.seeds),
            *(tables.point(by_task.get((*key, task))) for task in tasks),
        ]
        for key, point in points(sweep, by).items()
    ]
    prefix, names = _without_prefix(tasks)
    columns = (*by, "parameters", "score", "seeds", *names)
    heading = f"{sweep.name}, {sweep.scale_text}: mean ± standard deviation over seeds"
    if prefix:
        heading += f"; tasks {prefix}…"
    return Table(heading, columns, rows) if rows else None


def _without_prefix(tasks: Sequence[str]) -> tuple[str, list[str]]:
    """What several names begin with, up to the last `_`, and what is left of them: headings have to be short."""
    prefix = os.path.commonprefix(tasks) if len(tasks) > 1 else ""
    prefix = prefix[: prefix.rfind("_") + 1]
    return prefix, [task.removeprefix(prefix) for task in tasks]


def _score_label(sweep: Sweep) -> str:
    """What the scores are."""
    tasks = len(sweep.values("task"))
    return f"dev score, mean of {tasks} tasks" if tasks > 1 else "dev score"


def _seeds_of(lines: Mapping[str, Mapping[str, Point]]) -> str:
    """How many seeds the points of a panel have, and what the lines are averages of."""
    counts = sorted({point.seeds for line in lines.values() for point in line.values()})
    if counts == [1]:
        return "One seed, so no error bars."
    return f"{' to '.join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))} seeds a point."


def _series(name: str, line: list[Point], colour: int, kind: str) -> Series:
    """A line from points."""
    return Series(
        label=name,
        x=[point.total_params for point in line],
        y=[point.mean for point in line],
        sd=[point.sd for point in line],
        colour=colour,
        kind=kind,
    )


def _published_panel() -> Panel:
    """SPoT's numbers in place of the paper's Figure 1, and the one number that the paper has."""
    params = paper_numbers.FROZEN_PARAMS
    lines = []
    for method in ("prompt", "model", "multitask"):
        row = paper_numbers.FIGURE_1[method]
        lines.append(
            Series(
                label=METHOD_LABELS[method],
                x=[params[size] for size in row],
                y=[number.value for number in row.values()],
                sd=[number.sd for number in row.values()],
                colour=_METHODS.index(method),
                kind=OTHER,
            )
        )
    xxl = paper_numbers.FIGURE_1_PAPER_XXL
    colour = _METHODS.index("prompt")
    lines.append(
        Series("Prompt tuning, the paper", [params["xxl"]], [xxl.value], [None], colour, PAPER)
    )
    return Panel(
        name="figure_1.published",
        title=FIGURES["figure_1"][0],
        subtitle="published: stand-in from SPoT, Table 4",
        y_label="SuperGLUE dev score",
        series=tuple(lines),
        ticks=tuple((params[size], text) for size, text in paper_numbers.SIZE_LABELS.items()),
        kind=OTHER,
        caption="Not the paper's own points: it prints none. T5 1.1, 3 runs, standard deviation over runs."
        " Other models, other tasks and other axes than what was measured in miniature.",
    )


def _published_table() -> Table:
    """The numbers of the published panel, and GPT-3's."""
    rows = [
        [tables.text(METHOD_LABELS[method]), *(tables.published(number) for number in row.values())]
        for method, row in paper_numbers.FIGURE_1.items()
    ]
    sizes = "five sizes of GPT-3 that the source does not name"
    rows.append(
        [
            tables.text("Text prompt, GPT-3", sizes),
            *(tables.score(value) for value in paper_numbers.PROMPT_DESIGN),
        ]
    )
    xxl = paper_numbers.FIGURE_1_PAPER_XXL
    blank = [tables.Cell("") for _ in paper_numbers.SIZES[:-1]]
    rows.append([tables.text("Prompt tuning, the paper's own"), *blank, tables.published(xxl)])
    columns = ("method", *paper_numbers.SIZE_LABELS.values())
    caption = f"SuperGLUE dev: {paper_numbers.SPOT}, Table 4; last row: {paper_numbers.PAPER}"
    return Table(caption, columns, rows, OTHER)
