"""The table at the end of an evaluation of templates: ours beside what was published, printed and as a file."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.data.t0 import published
from prompt_tuning.data.templates import scores
from prompt_tuning.run import measured
from prompt_tuning.run.text_table import aligned

FILE = "template_scores.json"


def show(
    results: Mapping[str, Mapping[str, float]],
    output_dir: epath.Path,
    step: int,
    say: Callable[[str], Any],
) -> None:
    """Says the table and writes its file, in the first process, where a task is made of a template.

    Args:
      results: `{task: {metric: value}}`.
      output_dir: Parent of `inference_eval/`.
      step: Of the checkpoint.
      say: Takes the text.
    """
    summary = summarize(results)
    if summary and jax.process_index() == 0:
        write(summary, output_dir, step)
        say(text(summary))


def summarize(results: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Returns what the table shows, or None where no task is made of a template.

    Args:
      results: `{task: {metric: value}}`.
    """
    found = scores.spreads(results)
    return scores.summary(found, published.MODELS) if found else None


def write(summary: Mapping[str, Any], output_dir: epath.Path, step: int) -> None:
    """Writes the summary as `inference_eval/template_scores.json`.

    Args:
      summary: From `summarize`.
      output_dir: Parent of `inference_eval/`.
      step: Of the checkpoint.
    """
    path = output_dir / measured.FOLDER / FILE
    json_files.write_atomically(path, json_files.encode({"step": step, **summary}))


def text(summary: Mapping[str, Any]) -> str:
    """Returns the table for people: a row a data set, then both means over them; ours first, then the published ones.

    Args:
      summary: From `summarize`.
    """
    datasets, beside = summary["datasets"], summary["published"]
    sizes: dict[str, int] = {}
    for row in datasets.values():
        sizes[row["group"]] = sizes.get(row["group"], 0) + 1
    head = ["data set", "templates", "median", "mean", "IQR", "quartiles"]
    rows = [head + [f"{model['model']}, {model['statistic']}" for model in beside]]
    for name, row in datasets.items():
        ours = [str(len(row["templates"])), _number(row["median"]), _number(row["mean"])]
        low, high = row["quartiles"]
        ours += [_number(high - low), f"{_number(low)} to {_number(high)}"]
        rows.append([name, *ours, *(_number(model["scores"].get(name)) for model in beside)])
    for group in (name for name, size in sizes.items() if size > 1):
        ours = [_number(summary["groups"][s][group]) for s in scores.STATISTICS]
        theirs = [_number(model["groups"].get(group)) for model in beside]
        rows.append([f"{group}, mean of {sizes[group]}", "", *ours, "", "", *theirs])
    for average, count in (("over_columns", len(datasets)), ("over_groups", len(sizes))):
        ours = [_number(summary["averages"][s][average]) for s in scores.STATISTICS]
        theirs = [_number(model["averages"][average]) for model in beside]
        rows.append([f"mean {average.replace('_', ' ')} ({count})", "", *ours, "", "", *theirs])
    sources = [f"{m['model']}, {m['statistic']}: {m['source']}" for m in beside]
    return "\n".join([aligned(rows, num_left=1), *sources])


def _number(value: float | None) -> str:
    """A score for people; nothing where there is none."""
    return "-" if value is None else f"{value:.1f}"
