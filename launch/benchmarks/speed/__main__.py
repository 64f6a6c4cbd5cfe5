"""Prints this package beside PEFT and transformers on the same work, a line of a table as soon as it is known.

Every line comes from processes of its own, one a side, which do their rounds in turn, so that what else the machine
does meets both. Weights and tokens are random; none of the work depends on them. `make bench` is
`python -m prompt_tuning.launch.benchmarks.speed`, and needs the extra `hf`.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from prompt_tuning.launch import pages
from prompt_tuning.launch.benchmarks import measuring, random_checkpoints
from prompt_tuning.launch.benchmarks.speed import table
from prompt_tuning.launch.benchmarks.speed.rows import ROWS, Row, Work

_MODULE = "prompt_tuning.launch.benchmarks.speed"


class Side:
    """The process of one side.

    Args:
      side: "ours" or "peft".
      work: What it does.
    """

    def __init__(self, side: str, work: Work):
        self._what = f"{side}: {work}"
        self._errors = tempfile.TemporaryFile("w+")
        config = measuring.config_of(work.size)
        settings = {
            **dataclasses.asdict(work),
            "model": random_checkpoints.huggingface_config(config),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{_MODULE}.worker", side, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.answers: dict[str, Any] = {"rounds": []}

    def wait(self) -> None:
        """Waits until it is ready."""
        self.answers |= self._read()

    def run(self, index: int) -> None:
        """Does a round."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{index}\n")
        self._process.stdin.flush()
        self.answers["rounds"].append(self._read())

    def end(self) -> None:
        """Ends the process; it says how much memory it took."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.answers |= self._read()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        with self._process, self._errors:
            pass

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            sys.exit(f"{self._errors.read()[-4000:]}\n{self._what}: the process has ended early")
        return json.loads(line)


def measure(row: Row) -> tuple[list[str], dict[str, str]]:
    """Returns the lines of a row, and the versions of what both sides are made of."""
    with contextlib.ExitStack() as stack:
        sides = {
            variant: stack.enter_context(Side("ours", dataclasses.replace(row.work, **changes)))
            for variant, changes in row.variants.items()
        }
        peft = stack.enter_context(Side("peft", row.work))
        everyone = [*sides.values(), peft]
        for side in everyone:
            side.wait()
        for index in range(row.passes * row.work.parts):
            # Whoever comes first in one round comes last in the next.
            for side in everyone if index % 2 else everyone[::-1]:
                side.run(index)
        for side in everyone:
            side.end()
    answers = {variant: side.answers for variant, side in sides.items()}
    versions = {**next(iter(answers.values()))["versions"], **peft.answers["versions"]}
    return table.lines_of(row, answers, peft.answers), versions


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name, row in ROWS.items() if not row.is_extra]
    parser.add_argument(
        "--only",
        metavar="ROW,...",
        help=f"of {', '.join(ROWS)}, or `all`; otherwise {', '.join(usual)}",
    )
    parser.add_argument("--write", type=pathlib.Path, help="page whose table to replace")
    flags = parser.parse_args(argv)
    names = flags.only.split(",") if flags.only else usual
    names = list(ROWS) if names == ["all"] else names
    if unknown := set(names) - set(ROWS):
        parser.error(f"--only: got {sorted(unknown)}, expected names of {list(ROWS)}")
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. Fix: pip install -c constraints.txt -e '.[hf]'")
    lines, versions, began = [], {}, time.perf_counter()
    print(*table.HEADER, sep="\n", flush=True)
    for name in names:
        new, versions = measure(ROWS[name])
        print(*new, sep="\n", flush=True)
        lines += new
    only = f" --only={flags.only}" if flags.only else ""
    above = table.heading(versions, f"python -m {_MODULE}{only}")
    print(f"\n{above}\nMeasured in {time.perf_counter() - began:.0f} s")
    if flags.write:
        text = "\n".join([above, *table.HEADER, *lines])
        pages.write(flags.write, text, title="Speed beside PEFT and transformers")


if __name__ == "__main__":
    main()
