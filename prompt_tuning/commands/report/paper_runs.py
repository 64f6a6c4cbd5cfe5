"""Table 5, the search space, real data, and sweeps of one's own: tables of runs."""

import dataclasses
import math

from prompt_tuning.commands.report import paper_numbers, tables
from prompt_tuning.commands.report.averages import FORMULA, points, times_to_mean
from prompt_tuning.commands.report.figures import OTHER, PAPER
from prompt_tuning.commands.report.rows import Results, Sweep
from prompt_tuning.commands.report.sections import Section, caption, each, label, made
from prompt_tuning.commands.report.tables import Cell, Table


def table_5(results: Results) -> Section:
    """Returns the time that training takes."""
    sweeps = results.find("table_5")
    lengths = sorted({length for _, length in paper_numbers.TABLE_5}, reverse=True)
    rows = [
        [
            tables.text(name),
            *(tables.duration(paper_numbers.TABLE_5.get((size, length))) for length in lengths),
        ]
        for size, name in paper_numbers.SIZE_LABELS.items()
    ]
    return Section(
        name="table_5",
        title="Table 5: time to within 1 % of the mean score",
        about="Training time until the dev score first reaches 99 % of the mean best score of its configuration:"
        " updates only, without compiling and evaluating. Mean and standard deviation over the runs that reach it.",
        tables=each(sweeps, _times_table),
        published_tables=(
            Table(
                f"BoolQ, h:mm:ss by prompt length; Small and Base on 4 TPU v2 chips, the others on 16 TPU v3 chips:"
                f" {paper_numbers.PAPER}",
                ("size", *(f"length {length}" for length in lengths)),
                rows,
                PAPER,
            ),
        ),
        made=each(sweeps, made),
    )


def _times_table(sweep: Sweep) -> Table:
    """The times of a sweep, a row for each configuration."""
    by = sweep.varying("seed")
    scores = points(sweep, by)
    rows = [
        [
            *map(tables.text, key),
            tables.point(scores[key]),
            tables.duration(time.seconds),
            tables.duration(time.sd),
            Cell(f"{time.reached} of {time.runs}", time.reached / time.runs),
        ]
        for key, time in times_to_mean(sweep, by).items()
    ]
    columns = (*by, "score", "time", "± time", "runs that reach it")
    return Table(caption(sweep, "seed"), columns, rows)


def search(results: Results) -> Section:
    """Returns the search for hyperparameters."""
    sweeps = results.find("appendix_search")
    rows = [[Cell(value) for value in row] for row in paper_numbers.SEARCH_SPACE]
    columns = ("hyperparameter", "searched", "used", "note")
    return Section(
        name="appendix_search",
        title="Appendix: search space",
        about=f"What other settings of the recipe score, best first. {FORMULA}",
        tables=each(sweeps, _best_first),
        published_tables=(Table(f"Searched: {paper_numbers.PAPER}", columns, rows, PAPER),),
        made=each(sweeps, made),
    )


def _best_first(sweep: Sweep) -> Table:
    """The scores of a sweep, averaged over tasks, best first."""
    table = scores_table(sweep, "task")
    score = table.columns.index("score")
    # An empty score, of an incomplete seed, comes last.
    values = [row[score].sort for row in table.rows]
    values = [math.inf if value is None else -value for value in values]
    order = sorted(range(len(values)), key=values.__getitem__)
    return dataclasses.replace(table, rows=[table.rows[index] for index in order])


def real_data(results: Results) -> Section:
    """Returns the runs on real data."""
    sweeps = results.find("real_data")
    rows = [
        [
            tables.text(task),
            tables.published(number),
            tables.text(what),
            tables.text(source),
            tables.score(majority) if majority is not None else Cell(""),
        ]
        for task, (number, what, source, majority) in paper_numbers.REAL_DATA.items()
    ]
    columns = ("task", "score", "what", "source", "most frequent label (the paper)")
    return Section(
        name="real_data",
        title="Real data: SST-2, CB, RTE and WiC",
        about="Small models on real data; the published numbers are of T5 1.1 Base, LM-adapted, with 248M parameters.",
        tables=each(sweeps, scores_table),
        published_tables=(Table("Prompt tuning of T5 1.1 Base, dev", columns, rows, OTHER),),
        made=each(sweeps, made),
    )


def other(name: str, results: Results) -> Section:
    """Returns a sweep that is none of the paper's."""
    sweeps = results.find(name)
    titles = {cell["title"] for sweep in sweeps for cell in sweep.cells if cell.get("title")}
    return Section(
        name=name,
        title=": ".join([name, *sorted(titles)]),
        about="A sweep that is none of the paper's. Mean ± standard deviation over seeds.",
        tables=each(sweeps, scores_table),
        made=each(sweeps, made),
    )


def scores_table(sweep: Sweep, *left_out: str) -> Table:
    """Returns the scores of a sweep, a row for each combination of axes.

    Args:
      sweep: The cells.
      *left_out: Axes to average over, besides the seed.
    """
    by = sweep.varying("seed", *left_out)
    rows = [
        [
            *(tables.text(label(axis, value)) for axis, value in zip(by, key, strict=True)),
            tables.count(point.total_params),
            tables.point(point),
            tables.count(point.seeds),
        ]
        for key, point in points(sweep, by).items()
    ]
    return Table(caption(sweep, "seed", *left_out), (*by, "parameters", "score", "seeds"), rows)
