"""Figures of a task's split: lengths, what a given length cuts off, labels, and what the vocabulary cannot write."""

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from prompt_tuning.commands.tasks import views
from prompt_tuning.data import tallies
from prompt_tuning.errors import DataError

PERCENTILES = (50, 90, 95, 99)
# With more different targets than this, they are free text and no labels.
MAX_LABELS = 20


def measure(
    task: seqio.Task,
    split: str,
    *,
    lengths: Mapping[str, Sequence[int]],
    num_examples: int | None = None,
) -> dict[str, Any]:
    """Measures one split.

    Args:
      task: The task.
      split: The split.
      lengths: Lengths in tokens, EOS included, at which truncation is counted, by feature.
      num_examples: Examples from the start of the split; None for all.

    Returns:
      `examples`; `labels` {text: number}, None where targets are free text; by feature `tokens` {mean, p50, …, max, EOS
      included}, `truncated` {length: percent of the examples}, `unknown_tokens` in percent of the tokens, and
      `with_unknown`, in percent of the examples.

    Raises:
      DataError: The split is empty, or its data malformed.
    """
    counts: dict[str, list[int]] = {name: [] for name in task.output_features}
    unknown: dict[str, list[int]] = {name: [] for name in task.output_features}
    targets: collections.Counter[str] = collections.Counter()
    whole = tallies.whole_lengths(task, {name: max(n) for name, n in lengths.items()})
    for example in itertools.islice(views.iterate(task, split, whole), num_examples):
        for name, feature in task.output_features.items():
            ids = np.asarray(example.get(name, ()))
            counts[name].append(len(ids))
            unknown[name].append(int(np.sum(ids == feature.vocabulary.unk_id)))
        if len(targets) <= MAX_LABELS:
            targets[_target(task, example)] += 1
    num = max(map(len, counts.values()))
    if num == 0:
        raise DataError(
            f"Split {split!r} of task {task.name!r} is empty",
            got=0,
            expected="at least one example after preprocessing",
            fix="choose another split or correct the data",
        )
    return {
        "task": task.name,
        "split": split,
        "examples": num,
        "labels": dict(targets.most_common()) if len(targets) <= MAX_LABELS else None,
        "features": {
            name: _feature(np.array(counts[name]), np.array(unknown[name]), lengths.get(name, ()))
            for name in counts
        },
    }


def _target(task: seqio.Task, example: Mapping[str, Any]) -> str:
    """Returns the text of an example's target."""
    text = example.get("targets" + tallies.PRETOKENIZED)
    if isinstance(text, bytes):
        return text.decode("utf-8")
    return task.output_features["targets"].vocabulary.decode([int(i) for i in example["targets"]])


def _feature(counts: np.ndarray, unknown: np.ndarray, lengths: Sequence[int]) -> dict[str, Any]:
    """Returns the figures of one feature from tokens [n] and unknown tokens [n] of its examples."""
    ranks = np.percentile(counts, PERCENTILES, method="inverted_cdf")
    percentiles = {f"p{p}": int(v) for p, v in zip(PERCENTILES, ranks, strict=True)}
    return {
        "tokens": {
            "min": int(counts.min()),
            "mean": round(float(counts.mean()), 2),
            **percentiles,
            "max": int(counts.max()),
        },
        "truncated": {str(n): round(100 * float(np.mean(counts > n)), 3) for n in lengths},
        "unknown_tokens": round(100 * float(unknown.sum() / max(counts.sum(), 1)), 4),
        "with_unknown": round(100 * float(np.mean(unknown > 0)), 3),
    }
