"""Writes the report: a folder of figures and one HTML page that needs no other file and no network."""

import base64
import hashlib
import html
import importlib.metadata
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from prompt_tuning.commands.report import claims, figures, published
from prompt_tuning.commands.report.measured import cells_table
from prompt_tuning.commands.report.rows import Results
from prompt_tuning.commands.report.sections import Section
from prompt_tuning.commands.report.tables import Table, count, duration, text

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
    script = (published.ASSETS / "page.js").read_text()
    values = {
        "title": TITLE,
        "paper": published.PAPER["paper"],
        "version": importlib.metadata.version("prompt-tuning"),
        "command": command,
        "notes": results.notes,
        "overview": _overview(sections),
        "claims": claims.table(results),
        "sections": sections,
        "svgs": svgs,
        "cells_table": cells_table,
        "script_hash": base64.b64encode(hashlib.sha256(f"\n{script}".encode()).digest()).decode(),
        "css": "".join((published.ASSETS / name).read_text() for name in ("look.css", "page.css")),
        "js": script,
    }
    page.write_text(render("page.html.jinja", **values))
    return page


def render(template: str, **values: Any) -> str:
    """Returns a template of the assets with these values in their places; HTML has what they hold escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (published.ASSETS / name).read_text()),
        autoescape=template.endswith(".html.jinja"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)


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
    # Without a size of its own a figure takes its frame's.
    body = re.sub(r'(?<= )(width|height)="[\d.]+pt" ?', "", body, count=2)
    # Ids are unique in their own document only, and all figures come into one.
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{panel.name}-", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, variable)
    name = html.escape(
        f"{panel.title}, {panel.subtitle}: {', '.join(series.label for series in panel.series)}"
    )
    return body.replace("<svg ", f'<svg role="img" aria-label="{name}" ', 1)


def _overview(sections: Sequence[Section]) -> Table:
    """What was measured, a row for each sweep and scale."""
    rows = [
        [
            text(section.title if sweep.name == section.name else sweep.name),
            text(sweep.scale),
            count(len(sweep.done)),
            count(len(sweep.failed)),
            count(len(sweep.missing)),
            duration(sum(cell.get("train_seconds") or 0.0 for cell in sweep.cells)),
            text("; ".join(sweep.known("device")) or "not recorded"),
        ]
        for section in sections
        for sweep in section.sweeps
    ]
    columns = ("experiment", "scale", "done", "failed", "missing", "training, all cells", "device")
    return Table("What the results hold", columns, rows)
