"""How a model does over all templates of a data set, and over data sets: median, mean and interquartile range.

The mean over data sets is taken by two conventions, since published averages use either: over all columns, where each
round of ANLI is one, and over groups, where its rounds are one together.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.templates import origins

STATISTICS = ("median", "mean")


@dataclasses.dataclass(frozen=True)
class Spread:
    """The scores of one data set.

    Attributes:
      group: See `origins.Origin`.
      tasks: Template -> its task.
      scores: Template -> score, in the unit of the metric.
    """

    group: str
    tasks: Mapping[str, str]
    scores: Mapping[str, float]

    @property
    def median(self) -> float:
        """The median over templates."""
        return float(np.median(list(self.scores.values())))

    @property
    def mean(self) -> float:
        """The mean over templates."""
        return float(np.mean(list(self.scores.values())))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile over templates, between two scores by a straight line."""
        low, high = np.percentile(list(self.scores.values()), [25, 75])
        return float(low), float(high)


def spreads(results: Mapping[str, Mapping[str, float]]) -> dict[str, Spread]:
    """Returns the scores of each data set, in the order of the names.

    Args:
      results: `{task: {metric: value}}`; tasks that are made of no template, or have no metric, are left out.

    Returns:
      Data set -> scores of its templates: the accuracy where a task has one, else the mean over its metrics.
    """
    found: dict[str, Spread] = {}
    for task, metrics in sorted(results.items()):
        origin = origins.of_task(task)
        if origin and metrics:
            spread = found.setdefault(origin.dataset, Spread(origin.group, {}, {}))
            score = metrics.get("accuracy", float(np.mean(list(metrics.values()))))
            found[origin.dataset] = dataclasses.replace(
                spread,
                tasks={**spread.tasks, origin.template: task},
                scores={**spread.scores, origin.template: score},
            )
    return dict(sorted(found.items()))


def grouped(scores: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, float]:
    """Returns the score of each group that has one: the mean over its data sets, unless one is lacking.

    Args:
      scores: Data set, or a group for which there is one number only -> score.
      groups: Data set -> its group, of all data sets.
    """
    members: dict[str, list[str]] = {}
    for name, group in groups.items():
        members.setdefault(group, []).append(name)
    found: dict[str, float] = {}
    for group, names in members.items():
        if group in scores:
            found[group] = scores[group]
        elif all(name in scores for name in names):
            found[group] = float(np.mean([scores[name] for name in names]))
    return found


def averages(
    scores: Mapping[str, float], groups: Mapping[str, str]
) -> tuple[float | None, float | None]:
    """Returns the means over columns and over groups; None where one of them is lacking.

    Args:
      scores: See `grouped`.
      groups: See `grouped`.
    """

    def mean(found: Mapping[str, float], names: Collection[str]) -> float | None:
        return float(np.mean([found[n] for n in names])) if all(n in found for n in names) else None

    return mean(scores, groups), mean(grouped(scores, groups), set(groups.values()))


def summary(
    found: Mapping[str, Spread], published: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Returns everything that a table shows, as JSON takes it.

    Args:
      found: What `spreads` returns, not empty.
      published: `model`, `statistic`, `source` and `scores` of others; those that share no data set are left out, as
        are their scores of others.
    """
    groups = {name: spread.group for name, spread in found.items()}
    known = {*groups, *groups.values()}
    ours = {
        statistic: {name: getattr(spread, statistic) for name, spread in found.items()}
        for statistic in STATISTICS
    }
    beside = [
        {**row, "scores": {n: s for n, s in row["scores"].items() if n in known}}
        for row in published
    ]
    return {
        "datasets": {
            name: {
                "group": spread.group,
                "median": spread.median,
                "mean": spread.mean,
                "quartiles": spread.quartiles,
                "templates": {
                    template: {"task": spread.tasks[template], "score": score}
                    for template, score in spread.scores.items()
                },
            }
            for name, spread in found.items()
        },
        "groups": {s: grouped(scores, groups) for s, scores in ours.items()},
        "averages": {s: _named(scores, groups) for s, scores in ours.items()},
        "published": [
            {
                **row,
                "groups": grouped(row["scores"], groups),
                "averages": _named(row["scores"], groups),
            }
            for row in beside
            if row["scores"]
        ],
    }


def _named(scores: Mapping[str, float], groups: Mapping[str, str]) -> dict[str, Any]:
    """The averages by name."""
    over_columns, over_groups = averages(scores, groups)
    return {"over_columns": over_columns, "over_groups": over_groups}
