"""Pictures of what `inspect` and `similarity` find."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from prompt_tuning.errors import check_choice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with any common colour blindness tell apart.
_PROMPT, _RANDOM, _START, _LABELS = "#0072B2", "#999999", "#E69F00", "#009E73"
_DPI = 150
# Cells of a heat map this many to a side can still hold their number.
_MAX_NUMBERED = 14


def check_name(path: str | None) -> None:
    """Raises ConfigError if the ending of a picture's name is of no format."""
    if path is None:
        return
    from matplotlib.backend_bases import FigureCanvasBase

    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    check_choice("The ending of --png", _format_of(path), formats, fix="end its name in .png")


def _format_of(path: str) -> str:
    """The format that a picture's name says."""
    return epath.Path(path).suffix.removeprefix(".").lower() or "png"


def write(figure: "Figure", path: str) -> None:
    """Writes a picture; the ending of its name says in which format, PNG if it has none."""
    target = epath.Path(path)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=_format_of(path), dpi=_DPI)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(buffer.getvalue())


def draw_inspections(results: Sequence[Mapping[str, Any]]) -> "Figure":
    """Returns a figure with a line of panels for each prompt: by row, and over time where the run is known."""
    from matplotlib.figure import Figure

    over_time = any(result["course"] for result in results)
    figure = Figure(figsize=(12 if over_time else 7, 4 * len(results)), layout="constrained")
    panels = figure.subplots(len(results), 2 if over_time else 1, squeeze=False)
    for result, line in zip(results, panels, strict=True):
        _draw_rows(line[0], result)
        if result["course"]:
            _draw_course(line[1], result)
        elif over_time:
            line[1].set_axis_off()
    return figure


def _draw_rows(axes: "Axes", result: Mapping[str, Any]) -> None:
    """Distance to the nearest token by row, beside random vectors and the start."""
    from matplotlib.ticker import MaxNLocator

    rows = [row["row"] for row in result["rows"]]
    nearest = [row["neighbours"][0]["distance"] for row in result["rows"]]
    drawn = [row["random_nearest_distance"] for row in result["rows"]]
    draws = result["random"]["draws"]
    axes.plot(rows, drawn, "x", color=_RANDOM, label=f"random vectors, mean of {draws}")
    if result["start"]:
        start = [row["start"]["nearest_distance"] for row in result["rows"]]
        axes.plot(rows, start, "s", color=_START, fillstyle="none", label="start")
    axes.plot(rows, nearest, "o", color=_PROMPT, label="prompt")
    with_label = [row["row"] for row in result["rows"] if row["labels"]]
    if with_label:
        axes.plot(
            with_label,
            [nearest[row] for row in with_label],
            "o",
            color=_LABELS,
            label="prompt, a class label among the neighbours",
        )
    axes.set(xlabel="row of the prompt", ylabel="cosine distance to the nearest token")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(_title(result), fontsize="medium")
    axes.set_ylim(bottom=min(0, *nearest, *drawn) - 0.02)
    axes.legend(fontsize="small")


def _draw_course(axes: "Axes", result: Mapping[str, Any]) -> None:
    """Mean distances over time, beside random vectors."""
    steps = [point["step"] for point in result["course"]]
    mean, sd = (result["random"][name]["nearest_distance"] for name in ("mean", "sd"))
    axes.axhspan(mean - sd, mean + sd, color=_RANDOM, alpha=0.3, linewidth=0)
    axes.axhline(mean, color=_RANDOM, linestyle=":", label="random vectors, mean ± sd")
    nearest = [point["nearest_distance"] for point in result["course"]]
    axes.plot(steps, nearest, "o-", color=_PROMPT, label="to the nearest token")
    if result["start"]:
        turned = [point["turned"] for point in result["course"]]
        axes.plot(steps, turned, "s--", color=_START, fillstyle="none", label="to the start")
    axes.set(xlabel="step", ylabel="cosine distance, mean of all rows")
    axes.set_title("over time", fontsize="medium")
    axes.legend(fontsize="small")


def draw_similarity(result: Mapping[str, Any]) -> "Figure":
    """Returns heat maps of both measures, in one order: tasks that are near one another lie side by side."""
    from matplotlib.figure import Figure

    names = [prompt["name"] for prompt in result["prompts"]]
    order = _order(np.asarray(result["of_means"]))
    size = max(4.0, 0.5 * len(names) + 2)
    figure = Figure(figsize=(2 * size + 1, size), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, measure, title in (
        (left, "of_means", "cosine of the averaged rows"),
        (right, "of_pairs", "average cosine of all pairs of rows"),
    ):
        values = np.asarray(result[measure])[np.ix_(order, order)]
        image = axes.imshow(values, cmap="viridis")
        ticks = [names[i] for i in order]
        axes.set_xticks(range(len(names)), ticks, rotation=90)
        axes.set_yticks(range(len(names)), ticks)
        axes.set_title(title, fontsize="medium")
        figure.colorbar(image, ax=axes, shrink=0.8)
        if len(names) > _MAX_NUMBERED:
            continue
        middle = (values.min() + values.max()) / 2
        for (row, column), value in np.ndenumerate(values):
            # Dark on light, and light on dark.
            color = "black" if value > middle else "white"
            place = {"ha": "center", "va": "center"}
            axes.text(column, row, f"{value:.2f}", color=color, fontsize="small", **place)
    return figure


def _order(similarity: np.ndarray) -> list[int]:
    """The order of the leaves of a tree that joins the most similar first (average linkage)."""
    from scipy.cluster import hierarchy
    from scipy.spatial import distance

    apart = 1 - (similarity + similarity.T) / 2
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(
        distance.squareform(apart.clip(min=0)), "average", optimal_ordering=True
    )
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


def _title(result: Mapping[str, Any]) -> str:
    """What a line of panels is about."""
    path = epath.Path(result["source"])
    name = result["task"] or f"{path.parent.name}/{path.name}"
    return name if result["step"] is None else f"{name}, step {result['step']}"
