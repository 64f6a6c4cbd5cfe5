"""Tables on the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table

# Figure -> its title, and that of its column over time, where it is shown.
_FIGURES = {
    "norm": ("norm of a row", "norm"),
    "nearest_distance": ("distance to the nearest token", "nearest"),
    "top_distance": ("distance to all neighbours", None),
    "near_one_another": ("cosine among a row's neighbours", "among"),
    "cluster_size": ("tokens in a row's cluster", "cluster"),
    "sharing_rows": ("rows that share neighbours", "sharing"),
    "labels_in_own_row": ("labels found in their own row", "own labels"),
    "labels_anywhere": ("labels found anywhere", "labels"),
    "moved": ("Euclidean distance to the start", "moved"),
    "turned": ("cosine distance to the start", "turned"),
    "kept_nearest": ("rows with the start's nearest token", "kept"),
}
# Columns where the output is no terminal, which has a width of its own.
_WIDTH = 150
_SHARED_SHOWN = 5


def print_inspection(result: Mapping[str, Any]) -> None:
    """Prints what `inspect` found of one prompt."""
    console = _console()
    step = "" if result["step"] is None else f", step {result['step']}"
    console.print(
        f"{result['source']}{step}: {result['length']} rows of width {result['width']}, compared with"
        f" {result['tokens']:,} tokens of {result['frozen_weights']} (mean norm {result['token_norm']:.4g})"
    )
    has_labels, has_start = result["labels"] is not None, result["start"] is not None
    head = ["row", "norm", f"nearest {result['top']} tokens, cosine distance", "cluster"]
    head += ["label"] * has_labels + ["nearest at the start", "moved"] * has_start
    _print(console, head, [_row_cells(row, has_labels, has_start) for row in result["rows"]])
    head = ["", "prompt", f"random, {result['random']['draws']} draws"] + ["start"] * has_start
    _print(console, head, _figure_rows(result))
    for group in result["groups"]:
        shared = ", ".join(f"{s['token']} ({s['rows']})" for s in group["shared"][:_SHARED_SHOWN])
        console.print(f"rows {_spans(group['rows'])} share {shared}")
    for label, rows in (result["labels"] or {}).items():
        console.print(f"label {label!r}: {f'rows {_spans(rows)}' if rows else 'not found'}")
    if result["course"]:
        short = {
            n: title for n, (_, title) in _FIGURES.items() if n in result["course"][-1] and title
        }
        rows = [
            [str(point["step"]), *(_number(point.get(name)) for name in short)]
            for point in result["course"]
        ]
        _print(console, ["step", *short.values()], rows)


def print_similarity(result: Mapping[str, Any]) -> None:
    """Prints the similarities of prompts, and the best sources for a target if one was named."""
    console = _console()
    names = [prompt["name"] for prompt in result["prompts"]]
    for measure, title in (
        ("of_means", "cosine of the averaged rows"),
        ("of_pairs", "average cosine of all pairs of rows"),
    ):
        rows = [
            [name, *(f"{value:.3f}" for value in values)]
            for name, values in zip(names, result[measure], strict=True)
        ]
        _print(console, [title, *names], rows)
    for measure, sources in (result["sources"] or {}).items():
        title = f"sources for {result['target']}, {measure}"
        rows = [[source["name"], f"{source['similarity']:.3f}"] for source in sources]
        _print(console, [title, "similarity"], rows)
    if result["sources"]:
        best = {sources[0]["name"]: sources[0]["flags"] for sources in result["sources"].values()}
        for name, flags in best.items():
            console.print(f"start from {name}: prompt-tuning train ...", *flags, sep=" \\\n  ")


def _row_cells(row: Mapping[str, Any], has_labels: bool, has_start: bool) -> list[str]:
    """The cells of one row of a prompt."""
    near = "  ".join(f"{n['token']} {n['distance']:.2f}" for n in row["neighbours"])
    cluster = " ".join(row["cluster"]) if len(row["cluster"]) > 1 else ""
    cells = [str(row["row"]), _number(row["norm"]), near, cluster]
    if has_labels:
        cells.append(", ".join(row["labels"]))
    if has_start:
        start = row["start"]
        cells += [f"{start['nearest']} {start['nearest_distance']:.2f}", _number(start["moved"])]
    return cells


def _figure_rows(result: Mapping[str, Any]) -> Iterable[list[str]]:
    """Yields the figures of a prompt beside those of random vectors and of the start."""
    mean, sd = result["random"]["mean"], result["random"]["sd"]
    for name, (title, _) in _FIGURES.items():
        if name in result["figures"]:
            drawn = f"{_number(mean[name])} ± {_number(sd[name])}" if name in mean else ""
            cells = [title, _number(result["figures"][name]), drawn]
            yield cells + ([_number(result["start"].get(name))] if result["start"] else [])


def _number(value: float | None) -> str:
    """A number in four digits, a whole one as such."""
    if value is None:
        return ""
    # Smaller ones are rounding.
    value = 0.0 if abs(value) < 1e-5 else value
    return f"{value:.0f}" if value == round(value) or abs(value) >= 1e4 else f"{value:.4g}"


def _spans(rows: Sequence[int]) -> str:
    """Row numbers, neighbouring ones as spans: 0-2, 5."""
    spans: list[list[int]] = []
    for row in rows:
        if spans and spans[-1][-1] == row - 1:
            spans[-1] = [spans[-1][0], row]
        else:
            spans.append([row])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _console() -> rich.console.Console:
    """A console that changes nothing of a text."""
    console = rich.console.Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def _print(
    console: rich.console.Console, head: Sequence[str], rows: Iterable[Sequence[str]]
) -> None:
    """Prints a table."""
    table = rich.table.Table(*head, box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for cells in rows:
        # Pieces of a vocabulary may look like rich's markup.
        table.add_row(*(rich.console.Text(cell) for cell in cells))
    console.print(table, soft_wrap=False)
