"""Counts what gets through: bad inputs, kills, errors of the machine, hostile rows of a report.

    python -m tests.faults.count [inputs] [kills] [errors] [rows] [--seed=0]

It needs nothing but the command line, so that a copy of this folder counts in another version of the package too. Flipped
bits are counted by `pytest -s -m slow tests/faults/test_flips.py`, a browser looks at rows in tests/commands/report.
"""

import argparse
import pathlib
import random
import shutil
import tempfile
from collections import Counter

from tests.faults import bad_inputs
from tests.faults.forks import Server
from tests.faults.world import World


def inputs(world: World, server: Server, seed: int, number: int = 500) -> Counter:
    """500 bad inputs over all commands."""
    names = bad_inputs.Names(world, server)
    found = Counter()
    for n in range(number):
        generator = random.Random(f"{seed} {n}")
        text = bad_inputs.random_text(generator)
        out = f"out_{n}"
        argv = bad_inputs.make(world, names, generator.choice, text, out, dry=False)
        # Nothing that is typed holds one.
        argv = [arg.replace("\0", "") for arg in argv]
        outcome = server.run(argv, folder=world.folder, seconds=90)
        how = "hangs" if outcome.is_hung else "told or right" if outcome.is_told else "tracebacks"
        found[how] += 1
        found["most MiB"] = max(found["most MiB"], round(outcome.mebibytes))
        if not outcome.is_told:
            _show(f"input {n}", argv, outcome)
        shutil.rmtree(world.folder / out, ignore_errors=True)
    return found


def _show(what: str, argv: list[str], outcome) -> None:
    """Prints what got through."""
    said = outcome.output[-1500:] if outcome.code != 0 or outcome.is_hung else outcome.last_line
    print(
        f"--- {what}: exit code {outcome.code}, {outcome.seconds:.1f} s: {argv}\n{said}", flush=True
    )


_KINDS = {"inputs": inputs}


def main() -> None:
    """Counts, and prints a line for each kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", choices=[*_KINDS, []], help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        world = World.make(pathlib.Path(folder), server)
        for kind in flags.kinds or _KINDS:
            print(f"{kind}: {dict(_KINDS[kind](world, server, flags.seed))}", flush=True)


if __name__ == "__main__":
    main()
