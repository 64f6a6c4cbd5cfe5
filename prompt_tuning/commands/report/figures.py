"""Draws one panel of a figure with matplotlib: scores over the size of the model."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from prompt_tuning.data import content

MEASURED, PAPER, OTHER = "measured", "paper", "other"
# Okabe and Ito's palette, told apart with the common colour blindnesses, without black and yellow and with the last
# three darker, to be seen on white. The page puts its own shades in their place, so each has one purpose only.
SERIES_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#a87400", "#2f8ec4")
INK, MUTED, GRID, SURFACE = "#1b1f24", "#57606b", "#d0d7df", "#fffffe"
_MARKERS = ("o", "s", "^", "D", "v", "P")
# The paper's single points among those of others.
_PAPER_MARKER = "*"
# Whose numbers: line, and whether markers are filled.
_STYLES = {MEASURED: ("-", True), PAPER: ("--", False), OTHER: (":", False)}
# Inches. Small enough that the text can be read where a phone shows the panel at its own width.
_SIZE = (4.5, 4.2)
_SETTINGS = {
    # Letters are outlines: the page brings no font.
    "svg.fonttype": "path",
    # Names of rows are text, dollars included.
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": SURFACE,
    "figure.facecolor": SURFACE,
    "savefig.facecolor": SURFACE,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Series:
    """One line of a panel.

    Args:
      label: Text in the legend.
      x: Parameters of the models.
      y: Mean scores, 0 to 100.
      sd: Standard deviations; None where there is none.
      colour: Index into the palette, so that a method has one colour in every panel.
      kind: Whose numbers: `MEASURED`, `PAPER` or `OTHER`.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    sd: Sequence[float | None]
    colour: int
    kind: str


@dataclass(frozen=True)
class Panel:
    """Axes of their own: numbers of one scale and one origin.

    Args:
      name: Stem of the files.
      title: Of the figure.
      subtitle: Whose numbers these are.
      y_label: Text at the vertical axis.
      series: Lines.
      ticks: (parameters, name) of each model.
      kind: Whose numbers.
      legend: What the lines differ in.
      caption: Text below.
    """

    name: str
    title: str
    subtitle: str
    y_label: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    kind: str
    legend: str = ""
    caption: str = ""


def svg(panel: Panel) -> str:
    """Returns a panel as an SVG document on white; the same panel gives the same text."""
    return _render(panel, format="svg", metadata={"Date": None}).decode()


def slug(name: str) -> str:
    """Returns a name as it may stand in ids, links and names of files: itself if it can, else with a digest of it."""
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:80]
    if kept == name and kept.strip("."):
        return name
    return f"{kept.strip('.-')}-{content.of_bytes(name)[:8]}"


def write(panel: Panel, folder: epath.Path) -> str:
    """Writes a panel as `NAME.svg` and `NAME.png` (200 dots per inch).

    Args:
      panel: What to draw.
      folder: Where to; it exists.

    Returns:
      The SVG document.
    """
    text = svg(panel)
    (folder / f"{panel.name}.svg").write_text(text)
    picture = _render(panel, format="png", dpi=200, metadata={"Software": None})
    (folder / f"{panel.name}.png").write_bytes(picture)
    return text


def _render(panel: Panel, **how: Any) -> bytes:
    """Draws a panel, untouched by the user's own settings of matplotlib."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # The name makes ids that are always the same, and no other panel's.
        settings: Any = {**_SETTINGS, "svg.hashsalt": panel.name}
        matplotlib.rcParams.update(settings)
        _draw(panel).savefig(buffer, **how)
    return buffer.getvalue()


def _draw(panel: Panel) -> Any:
    """The matplotlib figure of a panel."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    for series in panel.series:
        colour = SERIES_COLOURS[series.colour % len(SERIES_COLOURS)]
        line, filled = _STYLES[series.kind]
        axes.errorbar(
            series.x,
            series.y,
            # A bar of no length is drawn as none.
            yerr=[sd or 0.0 for sd in series.sd],
            label=series.label,
            color=colour,
            linestyle=line if len(series.x) > 1 else "none",
            linewidth=1.8,
            marker=_marker(series),
            markersize=12 if series.kind == PAPER else 6,
            markerfacecolor=colour if filled else SURFACE,
            markeredgewidth=1.5,
            capsize=3,
            elinewidth=1.2,
        )
    axes.set_xscale("log")
    axes.set_xticks([x for x, _ in panel.ticks], [_tick(x, name) for x, name in panel.ticks])
    axes.minorticks_off()
    axes.set_xlim(min(x for x, _ in panel.ticks) / 1.6, max(x for x, _ in panel.ticks) * 1.6)
    axes.set_xlabel("model and its parameters (log scale)")
    axes.set_ylabel(panel.y_label)
    axes.set_title(f"{panel.title}\n{panel.subtitle}", fontsize=10)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        loc="outside lower center", ncols=2, title=panel.legend, fontsize=9, handlelength=2.5
    )
    return figure


def _marker(series: Series) -> str:
    """A shape for each colour; lines beyond the palette have a colour again, but with another shape."""
    if series.kind == PAPER:
        return _PAPER_MARKER
    turns, index = divmod(series.colour, len(SERIES_COLOURS))
    return _MARKERS[(index + turns) % len(_MARKERS)]


def _tick(params: float, name: str) -> str:
    """The text at a model: its name and its parameters."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if params >= size:
            return f"{name}\n{params / size:.3g}{unit}"
    return f"{name}\n{params:.0f}"
