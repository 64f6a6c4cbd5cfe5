"""What the paper says of its figures and tables, held against the cells that were measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prompt_tuning.commands.report.averages import Point, further_points, points
from prompt_tuning.commands.report.rows import Results, Row, Sweep, key_of
from prompt_tuning.commands.report.sections import label
from prompt_tuning.commands.report.tables import Cell, Table

AGREES, IN_PART, DIFFERS = "agrees", "agrees in part", "does not agree"
UNDECIDED = "undecided"
# Points on the scale of 0 to 100 that the paper's "marginal" is taken to mean.
MARGINAL = 2.0
RULE = (
    "A difference counts, and has a *, if it is more than twice its standard error over seeds,"
    " sqrt(sd_a² / n_a + sd_b² / n_b); what has one run has no error of its own, and two such never count."
    " A claim agrees if the difference counts wherever the claim speaks of one (for most sizes: at more than half),"
    " agrees in part if it does somewhere and counts nowhere the other way round,"
    f" is {UNDECIDED} if no difference counts, and does not agree otherwise."
    f" That something helps little counts where the difference and twice its error are below {MARGINAL:.0f} points,"
    f" and counts the other way round where the difference less twice its error is not."
    " Claims about ensembles, which have one run a task, go by the mean over tasks, and agree in part if some task"
    " is the other way round."
)
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


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper that measured cells can bear out.

    Args:
      place: Where the paper says so.
      sentence: What it says, in this project's words.
      sweep: The sweep whose cells tell.
      quantity: What the measured differences are of.
      differences: Takes them from the sweep; [] if it lacks the cells.
      holds: Whether differences bear the claim out, by a verdict.
    """

    place: str
    sentence: str
    sweep: str
    quantity: str
    differences: Callable[[Sweep], list[Difference]]
    holds: Callable[[Sequence[Difference]], str]


def table(results: Results) -> Table | None:
    """Returns the claims with a verdict each, for every scale at which their sweep was measured; None without any."""
    rows = []
    for claim in CLAIMS:
        for sweep in results.find(claim.sweep):
            found = claim.differences(sweep)
            if found:
                rows.append(
                    [
                        Cell(claim.place),
                        Cell(claim.sentence),
                        Cell(claim.holds(found)),
                        Cell(f"{claim.quantity}: {', '.join(map(str, found))}"),
                        Cell(f"{sweep.name}, {sweep.scale_text}"),
                    ]
                )
    columns = ("the paper", "what it says", "measured", "differences", "cells")
    return Table(f"Claims of the paper. {RULE}", columns, rows) if rows else None


def difference(where: str, one: Point, other: Point) -> Difference:
    """Returns how much higher the mean of one point is than that of the other."""
    variances = [p.sd**2 / p.seeds for p in (one, other) if p.sd is not None]
    return Difference(
        where, one.mean - other.mean, math.sqrt(sum(variances)) if variances else None
    )


def by_size(axis: str, one: str, other: str) -> Callable[[Sweep], list[Difference]]:
    """Returns what takes the difference between two values of an axis at every size that has both."""

    def differences(sweep: Sweep) -> list[Difference]:
        if not {"size", axis} <= set(sweep.axes):
            return []
        found = points(sweep, ("size", axis))
        return [
            difference(size, found[size, one], found[size, other])
            for size in sweep.values("size")
            if _is_complete(found.get((size, one))) and _is_complete(found.get((size, other)))
        ]

    return differences


def between_ends(axis: str) -> Callable[[Sweep], list[Difference]]:
    """Returns what compares the largest number of an axis with the smallest, at every size."""

    def differences(sweep: Sweep) -> list[Difference]:
        values = sweep.values(axis)
        return by_size(axis, values[-1], values[0])(sweep) if len(values) > 1 else []

    return differences


def shrinkage(axis: str, one: str, other: str) -> Callable[[Sweep], list[Difference]]:
    """Returns what takes by how much a difference is larger at the smallest size than at the largest."""

    def differences(sweep: Sweep) -> list[Difference]:
        found = by_size(axis, one, other)(sweep)
        if len(found) < 2:
            return []
        small, large = found[0], found[-1]
        errors = [d.error for d in (small, large) if d.error is not None]
        error = math.hypot(*errors) if len(errors) == 2 else None
        return [Difference(f"{small.where} less {large.where}", small.value - large.value, error)]

    return differences


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


def votes(against: str) -> Callable[[Sweep], list[Difference]]:
    """Returns what takes the ensemble's score less its members' `average` or `best`, for every task."""

    def differences(sweep: Sweep) -> list[Difference]:
        axes = sweep.varying("seed", "method", "size")
        scores = [
            (" ".join(key_of(cell, axes)), cell["metrics"]["ensemble"], cell["metrics"][against])
            for cell in sweep.ensembles
        ]
        # A metric that is no number, as the correlation of answers that are all the same, is None in a row.
        return [Difference(w, a - b, None) for w, a, b in scores if a is not None and b is not None]

    return differences


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
    return DIFFERS if _mean(found) <= 0 else not_lower_on_the_whole(found)


def not_lower_on_the_whole(found: Sequence[Difference]) -> str:
    """Returns the verdict on a claim that the mean over tasks, which have one run each, is as high or higher."""
    if _mean(found) < 0:
        return DIFFERS
    return AGREES if min(d.value for d in found) >= 0 else IN_PART


def _mean(found: Sequence[Difference]) -> float:
    """The mean difference."""
    return sum(d.value for d in found) / len(found)


def _is_complete(point: Point | None) -> bool:
    """Whether there is a mean over seeds."""
    return point is not None and point.seeds > 0


def _two(
    place: str, sentence: str, sweep: str, axis: str, one: str, other: str, holds=higher
) -> Claim:
    """A claim about two values of an axis, at every size."""
    quantity = f"{label(axis, one)} less {label(axis, other)}"
    return Claim(place, sentence, sweep, quantity, by_size(axis, one, other), holds)


def _gap(place: str, sentence: str, sweep: str, axis: str, one: str, other: str) -> Claim:
    """A claim that a difference is smaller for the largest model than for the smallest."""
    quantity = f"({label(axis, one)} less {label(axis, other)}) of the smallest size less that of the largest"
    return Claim(place, sentence, sweep, quantity, shrinkage(axis, one, other), higher)


_INIT, _OBJECTIVE = ("figure_3b", "init"), ("figure_3c", "objective")
CLAIMS = (
    _gap(
        "Figure 1",
        "With size prompt tuning closes the gap to model tuning.",
        *("figure_1", "method", "model", "prompt"),
    ),
    _two(
        "Figure 1",
        "A tuned prompt is better than a text prompt at every size.",
        *("figure_1", "method", "prompt", "text"),
    ),
    _two(
        "Figure 3a",
        "More than one token is critical for most sizes.",
        *("figure_3a", "length", "20", "1"),
        mostly_higher,
    ),
    _two(
        "Figure 3a",
        f"Beyond 20 tokens there are only marginal gains (here: fewer than {MARGINAL:.0f} points).",
        *("figure_3a", "length", "100", "20"),
        hardly_higher,
    ),
    _two(
        "Figure 3b",
        "Class labels are better than random uniform rows.",
        *(*_INIT, "class_label", "random_uniform"),
    ),
    _two(
        "Figure 3b",
        "Class labels are at least as good as sampled vocabulary.",
        *(*_INIT, "class_label", "sampled_vocab"),
    ),
    _gap(
        "Figure 3b",
        "With size the gap between initialisations closes.",
        *(*_INIT, "class_label", "random_uniform"),
    ),
    _two(
        "Figure 3c",
        "LM adaptation is better than span corruption at every size.",
        *(*_OBJECTIVE, "lm_adaptation", "span_corruption"),
    ),
    _two(
        "Figure 3c",
        f"A sentinel before the targets helps little (here: fewer than {MARGINAL:.0f} points).",
        *(*_OBJECTIVE, "span_corruption_sentinel", "span_corruption"),
        hardly_higher,
    ),
    Claim(
        "Figure 3d",
        "Longer LM adaptation is better.",
        "figure_3d",
        "longest less none",
        between_ends("adapt_steps"),
        higher,
    ),
    Claim(
        "Table 1",
        "Prompts carry over to other domains better than tuned models.",
        "table_1",
        "Prompt tuning less Model tuning",
        on_other_tasks,
        higher,
    ),
    Claim(
        "Table 2",
        "Prompts carry over to the other paraphrase task better than tuned models.",
        "table_2",
        "Prompt tuning less Model tuning",
        on_other_tasks,
        higher,
    ),
    Claim(
        "Table 3",
        "An ensemble is better than its members are on average.",
        "table_3",
        "ensemble less average",
        votes("average"),
        higher_on_the_whole,
    ),
    Claim(
        "Table 3",
        "An ensemble is as good as the best of its members, or better.",
        "table_3",
        "ensemble less best",
        votes("best"),
        not_lower_on_the_whole,
    ),
)
