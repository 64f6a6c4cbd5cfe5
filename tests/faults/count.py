"""Counts what gets through: bad inputs, kills, errors of the machine, hostile rows of a report.

    python -m tests.faults.count [inputs] [kills] [errors] [rows] [--seed=0]

It needs nothing but the command line, so that a copy of this folder counts in another version of the package too.
Flipped bits are counted by `pytest -s -m slow tests/faults/test_flips.py`; a browser opens hostile rows in
tests/commands/report.
"""

import argparse
import errno
import hashlib
import html.parser
import json
import pathlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence

from prompt_tuning.checkpoints.open import open_source
from tests.commands.report import rows_fixture
from tests.faults import bad_inputs
from tests.faults.forks import Outcome, Server
from tests.faults.world import COMMANDS, World

_KILLED = ("train", "sweep", "infer", "convert", "export")
_WRITING = (errno.ENOSPC, errno.EROFS)
_READING = (errno.EIO, errno.EACCES)
_HOSTILE = (
    # What ends the attribute that it stands in, and is a name of a file besides.
    *["\"'><img src=x onerror='document.title=1'>"] * 6,
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "\"><svg onload=fetch('http://203.0.113.9/x')>",
    "'><iframe srcdoc='<script>1</script>'>",
    "<!--",
    "</style><style>@import 'http://203.0.113.9/x.css'</style>",
    "javascript:document.title='taken'",
    "../../outside",
    "a\nb\0c",
    "{{ ''.__class__ }}",
    "$(touch taken)",
    "url(http://203.0.113.9/x)",
    "\u202eabc",
    {"<b>": 1},
    ["<b>"],
    1e308,
    -1,
    True,
    None,
    "x" * 5000,
)


def count_inputs(world: World, server: Server, seed: int, number: int = 500) -> Counter:
    """500 bad inputs over all commands."""
    names = bad_inputs.Names(world, server)
    found = Counter({"told, or right": 0, "tracebacks": 0, "hangs": 0})
    most = 0.0
    for n in range(number):
        generator = random.Random(f"{seed} {n}")
        text = bad_inputs.random_text(generator)
        out = f"out_{n}"
        # Of those that turn out to be right a third runs.
        argv = bad_inputs.make(world, names, generator.choice, text, out, dry=n % 3 > 0)
        outcome = server.run(argv, folder=world.folder)
        found[_how(outcome)] += 1
        most = max(most, outcome.mebibytes)
        if not outcome.is_told:
            _show(f"input {n}", argv, outcome)
        shutil.rmtree(world.folder / out, ignore_errors=True)
    found["most MiB of a command"] = round(most)
    return found


def count_kills(world: World, server: Server, seed: int, number: int = 60) -> Counter:
    """60 kills; what is lost is a result that the same command does not come to afterwards."""
    removed = "whole once the unfinished folder that is named is removed"
    found = Counter({"whole afterwards": 0, removed: 0, "lost": 0})
    for command in _KILLED:
        argv = world.argv(command, f"sound_{command}")
        sound = server.run(argv, folder=world.folder)
        wanted = _result(world.folder / f"sound_{command}")
        assert sound.code == 0 and wanted, sound.output
        for n in range(number // len(_KILLED)):
            out = f"killed_{command}_{n}"
            argv = world.argv(command, out)
            moment = random.Random(f"{seed} {command} {n}").uniform(0, 0.95) * sound.seconds
            server.run(argv, folder=world.folder, kill_after=moment)
            again = server.run(argv, folder=world.folder)
            how = "whole afterwards"
            if again.code == 2 and f"{out}/weights is unfinished" in again.output:
                # `convert` does not go on in what may be somebody's.
                how = removed
                shutil.rmtree(world.folder / out / "weights")
                again = server.run(argv, folder=world.folder)
            is_whole = _result(world.folder / out) == wanted and again.is_told
            found[how if is_whole else "lost"] += 1
            if not is_whole:
                _show(f"killed after {moment:.2f} s", argv, again)
            shutil.rmtree(world.folder / out, ignore_errors=True)
    return found


def _result(out: pathlib.Path) -> dict[str, str]:
    """Digests of what a command is for, by the file; of a sweep's rows what does not differ between runs."""
    kept = {}
    for path in sorted(out.rglob("*")) if out.is_dir() else []:
        name = path.relative_to(out).as_posix()
        if not path.is_file() or "compilation_cache" in name:
            continue
        if path.name == "weights.json":
            # The files of a database are called otherwise each time.
            source = open_source(path.parent)
            for parameter in source.shapes():
                kept[parameter] = hashlib.sha256(source.read(parameter).tobytes()).hexdigest()
        elif path.name == "results.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            kept[name] = json.dumps([(row["key"], row["status"], row["score"]) for row in rows])
        elif name.endswith((".npy", "prompt.prompt.prompt")) or "00000-of-00001" in path.name:
            is_mark = name.endswith(("COMPLETED", ".json"))
            kept[name] = "" if is_mark else hashlib.sha256(path.read_bytes()).hexdigest()
    return kept


def count_errors(world: World, server: Server, seed: int, number: int = 60) -> Counter:
    """60 errors of the machine over all commands: full, broken, read-only, not permitted."""
    found = Counter({"told": 0, "went on": 0, "tracebacks": 0, "hangs": 0})
    asked = {}
    for n in range(number):
        command = COMMANDS[n % len(COMMANDS)]
        generator = random.Random(f"{seed} {n}")
        kind = generator.choice((*_WRITING, *_READING))
        reads = kind in _READING
        disk = {"folder": str(world.folder), "number": kind, "at": 10**9, "reads": reads}
        if command != "demo" and (command, reads) not in asked:
            argv = world.argv(command, f"sound_{command}_{reads}")
            whole = server.run(argv, folder=world.folder, disk=disk)
            asked[command, reads] = whole.asked
        # The demo asks hundreds of times and takes a minute: of it the beginning alone.
        most = asked.get((command, reads), 1)
        if most == 0:
            # It writes nothing.
            disk["number"], disk["reads"] = generator.choice(_READING), True
            most = 2
        disk["at"] = generator.randrange(most)
        out = f"out_{n}"
        outcome = server.run(world.argv(command, out), folder=world.folder, disk=disk)
        how = _how(outcome)
        if outcome.is_told:
            how = "told" if outcome.code == 2 else "went on"
        found[how] += 1
        if not outcome.is_told:
            what = f"{errno.errorcode[disk['number']]} at {disk['at']}"
            _show(what, world.argv(command, out), outcome)
        shutil.rmtree(world.folder / out, ignore_errors=True)
    return found


def count_rows(world: World, server: Server, seed: int, number: int = 50) -> Counter:
    """50 hostile rows of a report: none may become a script, a tag or an address of its page, or leave its folder."""
    found = Counter({"told, or shown as text": 0, "tracebacks": 0, "hangs": 0, "live": 0})
    axes = {"size": "mini", "init": "class_label", "task": "synthetic_cb"}
    sound = [rows_fixture.row("figure_3b", {**axes, "seed": n}) for n in range(3)]
    rows_fixture.write(world.folder / "rows", *sound)
    own = _live(world, server, "sound_report")
    # Panels, pictures and tables are named after these.
    places = [*sound[0], *["sweep", "scale", "scale", *axes, "name of an axis"] * 8]
    for n in range(number):
        generator = random.Random(f"{seed} {n}")
        place, value = generator.choice(places), generator.choice(_HOSTILE)
        rows = [dict(row) for row in sound]
        for row in rows[1:]:
            if place in axes or place not in row:
                name = place if place in axes else str(value)
                row["axes"] = {**row["axes"], name: value}
            else:
                row[place] = value
        rows_fixture.write(world.folder / "rows", *rows)
        out = f"report_{n}"
        argv = ["report", "rows", f"--output_dir={out}/report"]
        outcome = server.run(argv, folder=world.folder)
        live = _live_of(world.folder / out) - own
        how = _how(outcome)
        if outcome.is_told:
            how = "live" if live else "told, or shown as text"
        found[how] += 1
        if how != "told, or shown as text":
            _show(f"{place} is {value!r}: {sorted(live)[:3]}"[:600], argv, outcome)
        shutil.rmtree(world.folder / out, ignore_errors=True)
    return found


def _live(world: World, server: Server, out: str) -> set[str]:
    argv = ["report", "rows", f"--output_dir={out}/report"]
    outcome = server.run(argv, folder=world.folder)
    assert outcome.code == 0, outcome.output
    return _live_of(world.folder / out)


def _live_of(folder: pathlib.Path) -> set[str]:
    """What of a report's pages and pictures a browser would run or fetch."""
    pages = [path for path in folder.rglob("*") if path.suffix in (".html", ".svg")]
    reader = _Live()
    for page in pages:
        reader.feed(page.read_text(errors="replace"))
    return reader.found


class _Live(html.parser.HTMLParser):
    """Collects scripts, handlers, addresses and frames."""

    def __init__(self):
        super().__init__()
        self.found: set[str] = set()
        self._inside = ""

    def handle_starttag(self, tag, attrs):
        self._inside = tag if tag in ("script", "style") else ""
        if tag in ("iframe", "object", "embed", "base", "form"):
            self.found.add(tag)
        for name, value in attrs:
            value = (value or "").strip()
            is_address = name in ("src", "href", "xlink:href", "action", "srcdoc")
            if name.startswith("on") or (is_address and value.partition(":")[0] in _SCHEMES):
                self.found.add(f"{tag} {name}={value}")

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        is_live = self._inside == "script" or (self._inside == "style" and "import" in data)
        if is_live:
            self.found.add(f"{self._inside}: {data}")


_SCHEMES = ("http", "https", "javascript")


def _how(outcome: Outcome) -> str:
    return "hangs" if outcome.is_hung else "told, or right" if outcome.is_told else "tracebacks"


def _show(what: str, argv: Sequence[str], outcome: Outcome) -> None:
    """Prints what got through."""
    said = "\n".join(line[:300] for line in outcome.output.splitlines()[-25:])
    took = f"{outcome.seconds:.1f} s, {outcome.mebibytes:.0f} MiB"
    print(f"--- {what}: exit code {outcome.code}, {took}: {list(argv)}\n{said}", flush=True)


_KINDS = {
    "inputs": count_inputs,
    "kills": count_kills,
    "errors": count_errors,
    "rows": count_rows,
}


def main() -> None:
    """Counts, and prints a line for each kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(_KINDS)}; default: all")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        world = World.make(pathlib.Path(folder), server)
        for kind in flags.kinds or _KINDS:
            print(f"{kind}: {dict(_KINDS[kind](world, server, flags.seed))}", flush=True)


if __name__ == "__main__":
    main()
