"""Runs the paper in miniature and writes docs/measured/reproduction.md and the folder beside it from what it gave.

    python -m prompt_tuning.launch.studies.reproduction --output_dir=/path/results
    ... --superglue_dir=/path/superglue --glue_dir=/path/glue     real data too

1. `prompt-tuning sweep` runs what is missing of `SWEEPS` at mini scale, of real data where its folders are named, and
   counts the parameters of Table 4 at full scale. A command that was stopped goes on.
2. `docs/measured/reproduction/results.jsonl` gets the rows of all cells, without what only this machine can use.
3. `prompt-tuning report` draws them: `docs/measured/reproduction/index.html` and figures.
4. The tables of docs/measured/reproduction.md are written between its markers: claims, what was run, and scores.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from prompt_tuning.commands.report import claims, rows
from prompt_tuning.commands.report.page import render
from prompt_tuning.commands.report.rows import Results
from prompt_tuning.commands.report.sections import sections
from prompt_tuning.commands.report.tables import duration
from prompt_tuning.commands.sweep.command import CELLS_FAILED
from prompt_tuning.commands.sweep.results import TABLE
from prompt_tuning.config.files import PACKAGE_CONFIGS
from prompt_tuning.launch import pages

_PAPER = "prompt_tuning/configs/paper"
# Counted at full scale, run where its folders are named, and evaluated by another command.
_NOT_IN_MINIATURE = {"table_4", "real_data", "released_prompts"}
SWEEPS = sorted(
    {path.stem for path in (PACKAGE_CONFIGS / "paper").glob("*.gin")} - _NOT_IN_MINIATURE
)
# Paths of the machine that ran a cell.
_LOCAL = ("model_dir", "log")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs, draws and writes."""
    flags = parse(argv)
    if not flags.write_only:
        for arguments in sweeps(flags):
            run_command("sweep", *arguments, expected=(0, CELLS_FAILED))
    folder = flags.docs_dir / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    copy_rows(pathlib.Path(flags.output_dir), folder / TABLE)
    # The report shows this command, which should name no folder of this machine.
    shown = os.path.relpath(folder)
    run_command("report", shown, f"--output_dir={shown}")
    text = page(rows.read([str(folder)]))
    title = "The paper in miniature, measured"
    pages.write(flags.docs_dir / "reproduction.md", text, title=title)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output_dir", required=True, help="folder of results.jsonl and runs")
    parser.add_argument("--jobs", type=int, help="worker processes, as `prompt-tuning sweep` has")
    parser.add_argument("--superglue_dir", help="folder with the files of CB, RTE and WiC")
    parser.add_argument("--glue_dir", help="folder with the files of SST-2")
    parser.add_argument("--write_only", action="store_true", help="write what there is; run none")
    parser.add_argument(
        "--docs_dir",
        type=pathlib.Path,
        default=pathlib.Path("docs/measured"),
        help="default: docs/measured, here",
    )
    flags = parser.parse_args(argv)
    if bool(flags.superglue_dir) != bool(flags.glue_dir):
        parser.error("real data needs both --superglue_dir and --glue_dir: name the other one too")
    return flags


def sweeps(flags: argparse.Namespace) -> list[list[str]]:
    """Returns the arguments of every `prompt-tuning sweep`."""
    common = [f"--output_dir={flags.output_dir}"]
    if flags.jobs:
        common.append(f"--jobs={flags.jobs}")
    found = [
        [*(f"{_PAPER}/{name}.gin" for name in SWEEPS), "--scale=mini", *common],
        [f"{_PAPER}/table_4.gin", "--scale=full", *common],
    ]
    if flags.superglue_dir:
        real = [f"{_PAPER}/real_data.gin", "--scale=mini", *common]
        real.append(f"--gin.TASK_DATA_DIR='{flags.superglue_dir}'")
        real.append(f"--gin.SST2_DATA_DIR='{flags.glue_dir}'")
        found.append(real)
    return found


def copy_rows(results: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the rows that a report reads, in an order of their own.

    Args:
      results: Folder of a sweep.
      target: File to write. Where a cell has several rows it gets the one that counts.
    """
    found = [cell for sweep in rows.read([str(results)]).sweeps for cell in sweep.cells]
    kept = [{k: v for k, v in cell.items() if k not in _LOCAL} for cell in found]
    lines = (json.dumps(row, sort_keys=True) + "\n" for row in kept)
    target.write_text("".join(lines), encoding="utf-8")


def page(results: Results) -> str:
    """Returns the tables of docs/measured/reproduction.md."""
    # A run that several sweeps share has a row in each, under one key.
    runs = {cell.get("key"): cell for sweep in results.sweeps for cell in sweep.runs}
    return render(
        "reproduction.md.jinja",
        runs=list(runs.values()),
        sweeps=results.sweeps,
        claims=claims.table(results),
        sections=sections(results),
        duration=duration,
    )


def run_command(*arguments: str, expected: Sequence[int] = (0,)) -> None:
    """Runs a command of this package, and ends with it unless its exit code is one of those expected."""
    command = [sys.executable, "-m", "prompt_tuning", *arguments]
    code = subprocess.run(command, check=False).returncode
    if code not in expected:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
