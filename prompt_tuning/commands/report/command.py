"""The command `prompt-tuning report`: draws the results of sweeps beside the published numbers."""

import argparse
import shlex
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> None:
    """Writes the report.

    Args:
      argv: Flags.

    Raises:
      DataError: If the results are missing or no results.
    """
    parser = argparse.ArgumentParser(
        "prompt-tuning report",
        description="Draws the results of sweeps beside the paper's numbers: an HTML page, and figures as PNG and SVG.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "results",
        nargs="+",
        help="folders that `prompt-tuning sweep` wrote, or results.jsonl files",
    )
    add("--output_dir", required=True, help="folder for index.html and figures/")
    flags = parser.parse_args(list(argv))
    from etils import epath

    from prompt_tuning.commands.report import page, rows
    from prompt_tuning.commands.report.sections import sections

    results = rows.read(flags.results)
    for note in results.notes:
        print(f"warning: {note}", file=sys.stderr)
    command = shlex.join(["prompt-tuning", "report", *argv])
    path = page.write(results, sections(results), epath.Path(flags.output_dir), command)
    for sweep in results.sweeps:
        print(
            f"{sweep.name}, {sweep.scale_text}: {len(sweep.done)} cells done, {len(sweep.failed)} failed,"
            f" {len(sweep.missing)} missing"
        )
    print(f"The report: {path}")
