"""Writes the report: a folder of figures and one HTML page that needs no other file and no network."""

import html
import importlib.metadata
import re
from collections.abc import Sequence

from etils import epath

from prompt_tuning.commands.report import claims, figures, paper_numbers
from prompt_tuning.commands.report.rows import Results
from prompt_tuning.commands.report.sections import Section
from prompt_tuning.commands.report.tables import Table, count, duration, text

_ASSETS = "commands/report/assets"
TITLE = "The paper's experiments, measured"
# Colours of the drawn figures -> those of the page, which follow the reader's colour scheme.
_VARIABLES = {
    figures.INK: "var(--ink)",
    figures.MUTED: "var(--muted)",
    figures.GRID: "var(--grid)",
    figures.SURFACE: "var(--surface)",
    **{colour: f"var(--s{index})" for index, colour in enumerate(figures.SERIES_COLOURS)},
}


def write(
    results: Results, sections: Sequence[Section], folder: epath.Path, command: str
) -> epath.Path:
    """Writes `index.html`, and `figures/NAME.svg` and `figures/NAME.png` for every panel.

    The same results give the same bytes with the same versions of the libraries.

    Args:
      results: What the report is made of.
      sections: Its parts.
      folder: Where to; made if missing.
      command: The command that makes the report, to be shown.

    Returns:
      Path of the page.
    """
    drawn = folder / "figures"
    drawn.mkdir(parents=True, exist_ok=True)
    svgs = {
        panel.name: inline(figures.write(panel, drawn), panel)
        for section in sections
        for panel in (*section.measured, *section.published)
    }
    page = folder / "index.html"
    page.write_text(_render(results, sections, svgs, command))
    return page


def inline(document: str, panel: figures.Panel) -> str:
    """Returns an SVG document as an element of the page, in the page's colours.

    Args:
      document: As `figures.svg` gives it.
      panel: What it shows.

    Returns:
      The `<svg>` element, named for those who cannot see it, with ids that no other figure has.
    """
    body = document[document.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(?<= )(width|height)="[\d.]+pt" ?', "", body, count=2)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{panel.name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    name = html.escape(
        f"{panel.title}, {panel.subtitle}: {', '.join(series.label for series in panel.series)}"
    )
    return body.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _render(
    results: Results, sections: Sequence[Section], svgs: dict[str, str], command: str
) -> str:
    """The page's text."""
    import jinja2

    assets = epath.resource_path("prompt_tuning") / _ASSETS
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((assets / "page.html.jinja").read_text())
    return template.render(
        title=TITLE,
        paper=paper_numbers.PAPER,
        version=importlib.metadata.version("prompt-tuning"),
        command=command,
        notes=results.notes,
        overview=_overview(sections),
        claims=claims.table(results),
        sections=sections,
        svgs=svgs,
        css=(assets / "page.css").read_text(),
        js=(assets / "page.js").read_text(),
    )


def _overview(sections: Sequence[Section]) -> Table:
    """What was measured, a row for each sweep and scale."""
    rows = [
        [
            text(section.title if made.sweep.name == section.name else made.sweep.name),
            text(made.sweep.scale),
            count(len(made.sweep.done)),
            count(len(made.failed)),
            count(len(made.sweep.missing)),
            duration(made.seconds),
            text("; ".join(made.devices) or "not recorded"),
        ]
        for section in sections
        for made in section.made
    ]
    columns = ("experiment", "scale", "done", "failed", "missing", "training, all cells", "device")
    return Table("What the results hold", columns, rows)
