"""The sections of the report, in the order of the paper: what was measured beside what was published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.commands.report import measured, panels, published
from prompt_tuning.commands.report.figures import Panel, slug
from prompt_tuning.commands.report.rows import Results, Sweep
from prompt_tuning.commands.report.tables import Table

# `measured` of a section -> what makes the table of a sweep.
_TABLES: dict[str, Callable[[Sweep], Table | None]] = {
    "transfer": measured.transfer_table,
    "ensembles": measured.ensembles_table,
    "counts": measured.counts_table,
    "times": measured.times_table,
    "costs": measured.costs_table,
    "best_first": measured.best_first,
    "scores": measured.scores_table,
}


@dataclass(frozen=True)
class Section:
    """One experiment.

    Args:
      name: Name of the sweep.
      title: Heading.
      about: What is compared.
      sweeps: What was measured; the page says where it comes from.
      measured: Panels drawn from the results.
      published: Panels drawn from published numbers.
      tables: Tables of measured numbers.
      published_tables: Tables of published numbers.
      statements: What the paper says in words.
      remarks: What one has to know to read the published numbers.
    """

    name: str
    title: str
    about: str
    sweeps: tuple[Sweep, ...]
    measured: tuple[Panel, ...] = ()
    published: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()
    published_tables: tuple[Table, ...] = ()
    statements: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def sections(results: Results) -> list[Section]:
    """Returns every section; those of the paper also where nothing was measured.

    Args:
      results: All results.

    Returns:
      The paper's figures and tables, real data, then sweeps that are none of the paper's.
    """
    found = [_section(described, results) for described in published.PAPER["sections"]]
    known = {sweep.name for section in found for sweep in section.sweeps}
    own = sorted({sweep.name for sweep in results.sweeps} - known)
    return [*found, *(_section(_described(name, results), results) for name in own)]


def _described(name: str, results: Results) -> dict[str, str]:
    """A sweep that is none of the paper's, as those of the paper are described."""
    cells = [cell for sweep in results.find(name) for cell in sweep.cells]
    titles = sorted({cell["title"] for cell in cells if cell.get("title")})
    return {
        "name": name,
        "title": ": ".join([name, *titles]),
        "about": "A sweep that is none of the paper's. Mean ± standard deviation over seeds.",
        "measured": "scores",
    }


def _section(described: Mapping[str, Any], results: Results) -> Section:
    """A section as `published.PAPER` describes it."""
    together = results.find(described["name"], *described.get("together_with", ()))
    apart = [
        (sweep, f", {how}")
        for name, how in described.get("apart", {}).items()
        for sweep in results.find(name)
    ]
    sweeps = (*together, *(sweep for sweep, _ in apart))
    published_table = published.table(described) if "published" in described else None
    drawn = published_table if "panel" in described else None
    tables, made = [], []
    if "measured" in described:
        tables += [_TABLES[described["measured"]](sweep) for sweep in sweeps]
    if "axis" in described:
        tables += [measured.points_table(sweep, described["axis"]) for sweep in sweeps]
        by_scale: dict[str, list[Sweep]] = {}
        for sweep in together:
            by_scale.setdefault(sweep.scale, []).append(sweep)
        made = [panels.measured(group, described) for group in by_scale.values()]
        made += [panels.measured([sweep], described, how) for sweep, how in apart]
    return Section(
        name=slug(described["name"]),
        title=described["title"],
        about=described["about"].format(formula=published.PAPER["formula"]),
        sweeps=sweeps,
        measured=tuple(panel for panel in made if panel is not None),
        published=(panels.of_table(described, drawn),) if drawn else (),
        tables=tuple(table for table in tables if table is not None),
        published_tables=(published_table,) if published_table else (),
        statements=tuple(described.get("statements", ())),
        remarks=tuple(described.get("remarks", ())),
    )
