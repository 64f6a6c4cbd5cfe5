"""Tables 1 to 5 of the paper, the search space and real data: measured and published in tables of their own."""

from collections.abc import Mapping

from prompt_tuning.commands.report import paper_numbers, tables
from prompt_tuning.commands.report.averages import Point, further_points
from prompt_tuning.commands.report.figures import PAPER
from prompt_tuning.commands.report.paper_numbers import Number
from prompt_tuning.commands.report.rows import Results, Row, Sweep, key_of
from prompt_tuning.commands.report.sections import (
    METHOD_LABELS,
    Section,
    caption,
    each,
    label,
    made,
)
from prompt_tuning.commands.report.tables import Cell, Table

# Stands for the task that a run was trained on.
_OWN = "the same"


def table_1(results: Results) -> Section:
    """Returns the transfer from one domain to others."""
    sweeps = results.find("table_1")
    rows = [
        [
            tables.text(name),
            tables.text(domain),
            tables.published(model),
            tables.published(prompt),
            Cell(f"{difference:+.1f}", difference),
        ]
        for name, (domain, model, prompt, difference) in paper_numbers.TABLE_1.items()
    ]
    columns = ("evaluated on", "domain", "model tuning", "prompt tuning", "difference")
    return Section(
        name="table_1",
        title="Table 1: transfer to other domains",
        about="Trained and selected on one data set, evaluated on others. Mean ± standard deviation over seeds.",
        tables=each(sweeps, lambda sweep: transfer_table(sweep)),
        published_tables=(
            Table(f"F1 after training on SQuAD: {paper_numbers.PAPER}", columns, rows, PAPER),
        ),
        made=each(sweeps, made),
    )


def table_2(results: Results) -> Section:
    """Returns the transfer between paraphrase tasks."""
    sweeps = results.find("table_2")
    rows = [
        [
            tables.text(source),
            tables.text(target),
            tables.text(METHOD_LABELS[method]),
            tables.published(accuracy),
            tables.published(f1),
        ]
        for (source, target, method), (accuracy, f1) in paper_numbers.TABLE_2.items()
    ]
    columns = ("trained on", "evaluated on", "method", "accuracy", "F1")
    return Section(
        name="table_2",
        title="Table 2: transfer between paraphrase tasks",
        about="Trained and selected on one task, evaluated on the other. Mean ± standard deviation over seeds.",
        tables=each(sweeps, lambda sweep: transfer_table(sweep)),
        published_tables=(Table(paper_numbers.PAPER, columns, rows, PAPER),),
        made=each(sweeps, made),
    )


def transfer_table(sweep: Sweep) -> Table:
    """Returns what runs score on the task they were trained on and on further ones: metrics by methods."""
    others = sweep.varying("seed", "method")
    methods = sweep.values("method")
    by = [*others, "method"] if methods else others
    rows: dict[tuple[str, ...], dict[str, Point]] = {}
    for key, point in further_points(sweep, by, _metrics_of).items():
        rest = key[len(by) :]
        method = key[len(others)] if methods else ""
        rows.setdefault((*key[: len(others)], *rest), {})[method] = point
    with_difference = {"model", "prompt"} <= set(methods)
    cells = [
        [
            *map(tables.text, key),
            *(tables.point(rows[key].get(method)) for method in methods or [""]),
            *([_difference(rows[key])] if with_difference else []),
        ]
        for key in rows
    ]
    columns = (
        *others,
        "evaluated on",
        "metric",
        *([label("method", method) for method in methods] or ["score"]),
        *(("prompt less model tuning",) if with_difference else ()),
    )
    return Table(caption(sweep, "seed", "method"), columns, cells)


def _metrics_of(cell: Row) -> dict[tuple[str, ...], float]:
    """Every metric of a cell on its own task and on further ones."""
    scored = {_OWN: cell.get("metrics") or {}, **(cell.get("evaluations") or {})}
    return {
        (task, name): value
        for task, metrics in scored.items()
        for name, value in metrics.items()
        if value is not None
    }


def _difference(row: Mapping[str, Point]) -> Cell:
    """Prompt tuning less model tuning."""
    if not {"model", "prompt"} <= set(row):
        return Cell("")
    difference = row["prompt"].mean - row["model"].mean
    return Cell(f"{difference:+.1f}", difference)


def table_3(results: Results) -> Section:
    """Returns the ensembles of prompts."""
    sweeps = results.find("table_3")
    rows = [
        [
            tables.text(task),
            tables.text(metric),
            *(
                Cell(" / ".join(f"{value:.1f}" for value in values), sum(values) / len(values))
                for values in triple
            ),
        ]
        for task, (metric, *triple) in paper_numbers.TABLE_3.items()
    ]
    columns = ("task", "metric", "average", "best", "ensemble")
    return Section(
        name="table_3",
        title="Table 3: ensembles of prompts",
        about="Several prompts for one frozen model answer; the majority decides. Average and best are of its members.",
        tables=each(sweeps, _ensemble_table),
        published_tables=(
            Table(f"Five prompts, XXL: {paper_numbers.PAPER}", columns, rows, PAPER),
        ),
        made=each(sweeps, made),
    )


def _ensemble_table(sweep: Sweep) -> Table | None:
    """The ensembles of a sweep, and the mean over the tasks of each size."""
    kinds = ("average", "best", "ensemble")
    by = sweep.varying("seed")
    members = sweep.groups(by)
    votes = {key_of(cell, by): cell["metrics"] for cell in sweep.ensembles}
    rows, by_others = [], {}
    for key in sweep.ordered(by, votes):
        values = [votes[key][kind] for kind in kinds]
        rows.append(
            [
                *map(tables.text, key),
                tables.count(len(members.get(key, []))),
                *map(tables.score, values),
            ]
        )
        others = tuple(
            "mean of {} tasks" if a == "task" else v for a, v in zip(by, key, strict=True)
        )
        by_others.setdefault(others, []).append(values)
    if not rows:
        return None
    for others, found in by_others.items() if "task" in by else ():
        columns = zip(*found, strict=True)
        means = [None if None in column else sum(column) / len(found) for column in columns]
        names = [tables.text(name.format(len(found))) for name in others]
        rows.append([*names, Cell(""), *map(tables.score, means)])
    return Table(caption(sweep, "seed"), (*by, "prompts", *kinds), rows)


def table_4(results: Results) -> Section:
    """Returns the parameter counts."""
    sweeps = results.find("table_4")
    rows = [
        [tables.text(label_), tables.count(length), *_published_counts(size, length)]
        for size, label_ in paper_numbers.SIZE_LABELS.items()
        for length in paper_numbers.TABLE_4_LENGTHS
    ]
    columns = ("size", "prompt length", "trainable", "total", "trainable, %")
    return Section(
        name="table_4",
        title="Table 4: parameters",
        about="Parameters of a prompt, and of the frozen model with it. Counted, not trained.",
        tables=each(sweeps, _counts_table),
        published_tables=(
            Table(
                f"T5 1.1, misprints corrected, shares from the counts: {paper_numbers.PAPER}",
                columns,
                rows,
                PAPER,
            ),
        ),
        made=each(sweeps, made),
    )


def _published_counts(size: str, length: int) -> list[Cell]:
    """The paper's three numbers."""
    numbers = paper_numbers.table_4(size, length)
    return [
        tables.published(numbers["trainable"], ",.0f"),
        tables.published(numbers["total"], ",.0f"),
        tables.published(numbers["percent"], ".5f"),
    ]


def _counts_table(sweep: Sweep) -> Table:
    """What was counted; beside it the paper's numbers where the model is one of the paper's."""
    by = [axis for axis in sweep.axes if axis in ("size", "length", *sweep.varying())]
    counted = {key: cells[0] for key, cells in sweep.groups(by).items()}
    paper = {key: _paper_counts(sweep, dict(zip(by, key, strict=True))) for key in counted}
    with_paper = any(paper.values())
    rows = []
    for key in sweep.ordered(by, counted):
        total, trainable = counted[key]["total_params"], counted[key]["trainable_params"]
        percent = 100 * trainable / total
        row = [*map(tables.text, key), tables.count(trainable), tables.count(total)]
        row.append(Cell(f"{percent:.5f}", percent))
        rows.append([*row, *(_agreement(trainable, total, paper[key]) if with_paper else [])])
    columns = [*by, "trainable", "total", "trainable, %"]
    published = (len(columns), len(columns) + 1) if with_paper else ()
    columns += ["paper: trainable", "paper: total", "equal"] if with_paper else []
    return Table(f"Counted, {sweep.scale_text}", columns, rows, published_columns=published)


def _paper_counts(sweep: Sweep, axes: Mapping[str, str]) -> dict[str, Number] | None:
    """The paper's numbers for a cell; None where it has none."""
    lengths = {str(length): length for length in paper_numbers.TABLE_4_LENGTHS}
    size, length = axes.get("size", ""), axes.get("length", "")
    if sweep.scale != "full" or size not in paper_numbers.SIZES or length not in lengths:
        return None
    return paper_numbers.table_4(size, lengths[length])


def _agreement(trainable: float, total: float, paper: dict[str, Number] | None) -> list[Cell]:
    """The paper's numbers, and whether what was counted is the same."""
    if paper is None:
        return [Cell(""), Cell(""), Cell("")]
    is_equal = (trainable, total) == (paper["trainable"].value, paper["total"].value)
    numbers = [tables.published(paper[name], ",.0f") for name in ("trainable", "total")]
    return [*numbers, Cell("yes" if is_equal else "no")]
