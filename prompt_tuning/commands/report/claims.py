"""What the paper says of its figures and tables, held against the cells that were measured."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prompt_tuning.commands.report import published
from prompt_tuning.commands.report.averages import Point, further_points, points
from prompt_tuning.commands.report.rows import Results, Row, Sweep, key_of
from prompt_tuning.commands.report.tables import Cell, Table

AGREES, IN_PART, DIFFERS = "agrees", "agrees in part", "does not agree"
UNDECIDED = "undecided"
# Points on the scale of 0 to 100 that the paper's "marginal" is taken to mean.
MARGINAL = 2.0
_ERRORS = 2.0


@dataclass(frozen=True)
class Difference:
    """How much higher one mean is than another.

    Args:
      where: What both have in common, such as the size.
      value: The one less the other.
      error: Standard error over seeds; None where neither has several.
    """

    where: str
    value: float
    error: float | None

    @property
    def counts(self) -> bool:
        """Whether it is more than chance, in either direction."""
        return self.error is not None and abs(self.value) > _ERRORS * self.error

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.1f}"
        return f"{self.where} {self.value:+.1f}{error}{'*' if self.counts else ''}"


def table(results: Results) -> Table | None:
    """Returns the claims with a verdict each, for every scale at which their sweep was measured; None without any."""
    rows = []
    for claim in published.PAPER["claims"]:
        compare, *arguments = claim["compare"]
        for sweep in results.find(claim["sweep"]):
            found = _COMPARISONS[compare](sweep, *arguments)
            if found:
                cells = (
                    claim["place"],
                    claim["sentence"],
                    _VERDICTS[claim["verdict"]](found),
                    f"{claim['quantity']}: {', '.join(map(str, found))}",
                    f"{sweep.name}, {sweep.scale_text}",
                )
                rows.append([*map(Cell, cells)])
    rule = published.PAPER["rule"].format(marginal=f"{MARGINAL:.0f}", undecided=UNDECIDED)
    columns = ("the paper", "what it says", "measured", "differences", "cells")
    return Table(f"Claims of the paper. {rule}", columns, rows) if rows else None


def difference(where: str, one: Point, other: Point) -> Difference:
    """Returns how much higher the mean of one point is than that of the other."""
    variances = [p.sd**2 / p.seeds for p in (one, other) if p.sd is not None]
    return Difference(
        where, one.mean - other.mean, math.sqrt(sum(variances)) if variances else None
    )


def by_size(sweep: Sweep, axis: str, one: str, other: str) -> list[Difference]:
    """Returns the difference between two values of an axis at every size that has both."""
    if not {"size", axis} <= set(sweep.axes):
        return []
    found = {key: p for key, p in points(sweep, ("size", axis)).items() if p.seeds > 0}
    return [
        difference(size, found[size, one], found[size, other])
        for size in sweep.values("size")
        if {(size, one), (size, other)} <= set(found)
    ]


def between_ends(sweep: Sweep, axis: str) -> list[Difference]:
    """Returns the difference between the largest number of an axis and the smallest, at every size."""
    values = sweep.values(axis)
    return by_size(sweep, axis, values[-1], values[0]) if len(values) > 1 else []


def shrinkage(sweep: Sweep, axis: str, one: str, other: str) -> list[Difference]:
    """Returns by how much a difference is larger at the smallest size than at the largest."""
    found = by_size(sweep, axis, one, other)
    if len(found) < 2:
        return []
    small, large = found[0], found[-1]
    errors = [d.error for d in (small, large) if d.error is not None]
    error = math.hypot(*errors) if len(errors) == 2 else None
    return [Difference(f"{small.where} less {large.where}", small.value - large.value, error)]


def on_other_tasks(sweep: Sweep) -> list[Difference]:
    """Returns prompt tuning less model tuning on the tasks that runs were evaluated on but not trained on."""
    if not {"size", "source", "method"} <= set(sweep.axes):
        return []
    found = further_points(sweep, ("size", "source", "method"), _further_scores)
    return [
        difference(f"{source} to {task}", point, found[size, source, "model", task])
        for (size, source, method, task), point in found.items()
        if method == "prompt" and (size, source, "model", task) in found
    ]


def _further_scores(cell: Row) -> dict[tuple[str, ...], float]:
    """What a cell scores on the tasks it was not trained on: F1 of answers, as in Table 1, else the metrics' mean."""
    return {
        (task,): metrics["f1"] if "em" in metrics else sum(metrics.values()) / len(metrics)
        for task, metrics in (cell.get("evaluations") or {}).items()
        # Numbers that JSON lacks are None in a row.
        if metrics and None not in metrics.values()
    }


def votes(sweep: Sweep, against: str) -> list[Difference]:
    """Returns the ensemble's score less its members' `average` or `best`, for every task."""
    axes = sweep.varying("seed", "method", "size")
    scores = [
        (" ".join(key_of(cell, axes)), metrics.get("ensemble"), metrics.get(against))
        for cell in sweep.ensembles
        for metrics in [cell.get("metrics") or {}]
    ]
    # A metric that is no number, as the correlation of answers that are all the same, is None in a row.
    return [Difference(w, a - b, None) for w, a, b in scores if a is not None and b is not None]


def higher(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the first is higher everywhere."""
    up = sum(d.counts and d.value > 0 for d in found)
    return _verdict(found, up, against=sum(d.counts and d.value < 0 for d in found))


def mostly_higher(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the first is higher in most places: in more than half of them."""
    gains = [d for d in found if d.counts and d.value > 0]
    return AGREES if 2 * len(gains) > len(found) else higher(found)


def hardly_higher(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the first gains little everywhere: less than `MARGINAL` points."""
    known = [(d.value, _ERRORS * d.error) for d in found if d.error is not None]
    little = sum(value + error < MARGINAL for value, error in known)
    return _verdict(found, little, against=sum(v - error >= MARGINAL for v, error in known))


def _verdict(found: Sequence[Difference], bearing_out: int, *, against: int) -> str:
    """The verdict by how many differences count for a claim and how many against it."""
    if bearing_out == len(found):
        return AGREES
    if bearing_out == against == 0:
        return UNDECIDED
    return DIFFERS if against else IN_PART


def higher_on_the_whole(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the mean over tasks, which have one run each, is higher."""
    mean = statistics.fmean(d.value for d in found)
    return DIFFERS if mean <= 0 else not_lower_on_the_whole(found)


def not_lower_on_the_whole(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the mean over tasks, which have one run each, is as high or higher."""
    values = [d.value for d in found]
    if statistics.fmean(values) < 0:
        return DIFFERS
    return AGREES if min(values) >= 0 else IN_PART


# What `paper.toml` calls them.
_COMPARISONS: dict[str, Callable[..., list[Difference]]] = {
    f.__name__: f for f in (by_size, between_ends, shrinkage, on_other_tasks, votes)
}
_VERDICTS: dict[str, Callable[[Sequence[Difference]], str]] = {
    f.__name__: f
    for f in (higher, mostly_higher, hardly_higher, higher_on_the_whole, not_lower_on_the_whole)
}
