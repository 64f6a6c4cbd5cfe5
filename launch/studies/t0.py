"""Runs T0 in miniature on the ladder and writes the tables of docs/measured/t0.md from what it gave.

    python -m prompt_tuning.launch.studies.t0 --output_dir=/path/results

1. `prompt-tuning train` with ladder/t0_finetune.gin, once a seed: multitask prompted training of the rung micro.
2. `prompt-tuning sweep` over `SWEEPS`: zero-shot scores, and tuning on the tasks held out, from it and from the
   LM-adapted rung. A command that was stopped goes on.
3. The tables of docs/measured/t0.md are written between its markers.
"""

import argparse
import pathlib
import statistics
from collections.abc import Callable, Iterable, Sequence

from prompt_tuning.commands.report import rows
from prompt_tuning.commands.report.averages import mean_and_sd
from prompt_tuning.commands.report.rows import Results, Row, Sweep
from prompt_tuning.commands.report.tables import duration
from prompt_tuning.commands.sweep.command import CELLS_FAILED
from prompt_tuning.launch import pages
from prompt_tuning.launch.studies.reproduction import run_command

_CONFIGS = "prompt_tuning/configs"
SEEDS = (0, 1, 2)
# Sweep -> whether its cells are scored over templates.
SWEEPS = {"t0_zero_shot": True, "t0_prompt": False, "t0_t_few": True}
_STARTS = {"adapted": "LM-adapted", "prompted": "after prompted training"}


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, sweeps and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", required=True, help="folder of all runs and results")
    parser.add_argument("--jobs", type=int, help="worker processes, as `prompt-tuning sweep` has")
    parser.add_argument("--write_only", action="store_true", help="write what there is; run none")
    parser.add_argument(
        "--page",
        type=pathlib.Path,
        default=pathlib.Path("docs/measured/t0.md"),
        help="default: docs/measured/t0.md, here",
    )
    flags = parser.parse_args(argv)
    if not flags.write_only:
        for arguments in commands(flags.output_dir, flags.jobs):
            run_command(*arguments, expected=(0, CELLS_FAILED))
    text = page(rows.read([f"{flags.output_dir}/results"]))
    pages.write(flags.page, text, title="T0 in miniature, measured")


def commands(output_dir: str, jobs: int | None) -> list[list[str]]:
    """Returns the arguments of every command, in their order.

    Args:
      output_dir: Folder of all runs.
      jobs: Worker processes of the sweep; None for its default.
    """
    trained = f"{output_dir}/prompted"
    made = [
        [
            "train",
            f"--gin_file={_CONFIGS}/paper/sizes/micro.gin",
            f"--gin_file={_CONFIGS}/ladder/t0_finetune.gin",
            f"--gin.RANDOM_SEED={seed}",
            f"--gin.MODEL_DIR='{trained}/seed_{seed}'",
        ]
        for seed in SEEDS
    ]
    sweep = ["sweep", *(f"{_CONFIGS}/ladder/{name}.gin" for name in SWEEPS), "--scale=mini"]
    sweep += [f"--gin.T0_DIR='{trained}'", f"--output_dir={output_dir}/results"]
    return [*made, sweep + ([f"--jobs={jobs}"] if jobs else [])]


def page(results: Results) -> str:
    """Returns the tables of the page: one a sweep, and how long its cells took."""
    found = {sweep.name: sweep for sweep in results.sweeps}
    return "\n\n".join(_section(found[name]) for name in SWEEPS if name in found)


def _section(sweep: Sweep) -> str:
    """One sweep as text."""
    seconds = sum(cell.get("seconds") or 0 for cell in sweep.done)
    counts = (
        f"{len(sweep.done)} cells done, {len(sweep.failed)} failed, {len(sweep.missing)} missing"
    )
    title = ", ".join(sweep.known("title"))
    statistic = {"median": _median, "mean": _score} if SWEEPS[sweep.name] else {"score": _score}
    heads = [f"{text}, {name}" for text in _STARTS.values() for name in statistic]
    lines = [f"{title} (`{sweep.name}`): {counts}; {duration(seconds).text} of one worker.", ""]
    lines += [_line(["task", *heads]), _line(["---"] * (len(heads) + 1))]
    for task in sweep.values("task"):
        cells = [
            _over_seeds(sweep.done, start, task, of)
            for start in _STARTS
            for of in statistic.values()
        ]
        lines.append(_line([task, *cells]))
    return "\n".join(lines)


def _over_seeds(cells: Iterable[Row], start: str, task: str, of: Callable[[Row], float]) -> str:
    """Mean and standard deviation over the seeds."""
    wanted = {"start": start, "task": task}
    values = [of(cell) for cell in cells if wanted.items() <= dict(cell["axes"]).items()]
    mean, sd = mean_and_sd(values)
    if not values:
        return "-"
    return f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"


def _score(cell: Row) -> float:
    """The score of a cell: of templates their mean."""
    return float(cell["score"])


def _median(cell: Row) -> float:
    """The median over the templates of a task."""
    return statistics.median(cell["metrics"].values())


def _line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
