"""Means and standard deviations as the paper takes them: over tasks first, then over seeds."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prompt_tuning.commands.report.rows import Key, Row, Sweep, key_of
from prompt_tuning.commands.sweep.row_form import DONE

# Table 5 asks when a run comes this close to the mean score.
_CLOSE = 0.99


@dataclass(frozen=True)
class Point:
    """One point of a figure or one number of a table.

    Args:
      mean: Mean over seeds; NaN if no seed is complete.
      sd: Standard deviation over seeds, with n - 1; None for one seed.
      seeds: Seeds that have a result for every task.
      incomplete: Seeds left out because a task has no result.
      total_params: Parameters of the model, frozen and trainable; NaN if no row tells.
    """

    mean: float
    sd: float | None
    seeds: int
    incomplete: int = 0
    total_params: float = math.nan


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean, NaN of nothing, and the standard deviation with n - 1, None with fewer than two values."""
    if not values:
        return math.nan, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def points(sweep: Sweep, by: Sequence[str]) -> dict[Key, Point]:
    """Averages the scores of runs over tasks, then over seeds.

    A seed counts where it has every task of its method, and of methods that share tasks with it: the mean over fewer
    tasks would be another quantity.

    Args:
      sweep: The cells.
      by: Axes that tell points apart; the others are averaged over, `seed` last.

    Returns:
      Points by the values of `by`, in the order of these; those of cells that all failed too.
    """
    others = [axis for axis in sweep.axes if axis not in ("seed", *by)]
    per_seed = ["seed"] if "seed" in sweep.axes else []
    kind = ["method"] if "method" in by else []
    own = {
        key: {key_of(c, others) for c in cells}
        for key, cells in sweep.groups(kind, done=False).items()
    }
    # A method whose cells come later in the sweep has few tasks at first. Multi-task tuning has tasks of its own.
    tasks = {key: set().union(*(t for t in own.values() if t & mine)) for key, mine in own.items()}
    found = {}
    for key, cells in sweep.groups(by, done=False).items():
        expected = len(tasks[key_of(cells[0], kind)])
        seeds: dict[Key, list[float]] = {}
        for cell in cells:
            scores = seeds.setdefault(key_of(cell, per_seed), [])
            if cell["status"] == DONE and cell.get("score") is not None:
                scores.append(cell["score"])
        complete = [statistics.fmean(s) for s in seeds.values() if len(s) == expected]
        params = [cell["total_params"] for cell in cells if cell.get("total_params")]
        found[key] = Point(
            *mean_and_sd(complete),
            seeds=len(complete),
            incomplete=len(seeds) - len(complete),
            total_params=mean_and_sd(params)[0],
        )
    return found


def further_points(
    sweep: Sweep, by: Sequence[str], scores: Callable[[Row], Mapping[Key, float]]
) -> dict[Key, Point]:
    """Averages several numbers of each run over seeds.

    Args:
      sweep: The cells.
      by: Axes that tell points apart: all but the seed.
      scores: Takes the numbers of a cell, with names.

    Returns:
      Points by the values of `by`, in the order of these, and the names.
    """
    values: dict[Key, list[float]] = {}
    for key, cells in sweep.groups(by).items():
        for cell in cells:
            for names, value in scores(cell).items():
                values.setdefault((*key, *names), []).append(value)
    return {key: Point(*mean_and_sd(found), seeds=len(found)) for key, found in values.items()}


def times_to_mean(sweep: Sweep, by: Sequence[str]) -> dict[Key, Point]:
    """Takes the time to within 1 % of the mean score from the curves of runs, as in the paper's Table 5.

    The mean is over the best scores of all runs of a configuration. A run's time to a step is its `train_seconds` times
    the step's share of its steps, which take about the same time each.

    Args:
      sweep: The cells.
      by: Axes that make a configuration.

    Returns:
      Seconds by the values of `by`, in the order of these: of the runs that came so close; the others are `incomplete`.
    """
    found = {}
    for key, cells in sweep.groups(by).items():
        scored = [cell for cell in cells if cell.get("score") is not None]
        if scored:
            goal = _CLOSE * statistics.fmean(cell["score"] for cell in scored)
            times = [_seconds_to(goal, cell) for cell in scored]
            reached = [time for time in times if time is not None]
            found[key] = Point(
                *mean_and_sd(reached), seeds=len(reached), incomplete=len(times) - len(reached)
            )
    return found


def _seconds_to(goal: float, cell: Row) -> float | None:
    """Seconds of training until a run's curve reaches `goal`; None if it does not or the row cannot tell."""
    if not cell.get("curve") or not cell.get("steps") or cell.get("train_seconds") is None:
        return None
    for step, score in cell["curve"]:
        if score >= goal:
            return cell["train_seconds"] * step / cell["steps"]
    return None
