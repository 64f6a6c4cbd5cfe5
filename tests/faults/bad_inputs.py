"""Bad inputs for every command: one that is right, of which a thing or two become what somebody may have typed.

What is chosen comes from outside: from Hypothesis, which then makes it smaller, or from a seed.
"""

import codecs
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.faults.forks import Server
from tests.faults.world import COMMANDS, World
from tests.helpers import REPO

_T = TypeVar("_T")
Choose = Callable[[Sequence[_T]], _T]

VALUES = (
    *("", " ", "0", "-1", "1e30", "1e400", "-0.5", "nan", "inf", "3.7", "99999999999999999999"),
    *("None", "True", "[]", "{}", "()", "''", "'x'", "['a', 'b']", "{'inputs': 0}", "[None]"),
    *("{'inputs': 24}", "{'inputs': 'a', 'targets': None}", "{1: 2}", "b'x'", "1_0", "0x10", "1j"),
    *(
        "'",
        '"',
        "(",
        "‘x’",
        "a b",
        "a=b",
        "=",
        ",",
        ",,a",
        "a,a",
        "%",
        "%NOPE",
        "@",
        "@os.system()",
    ),
    *(
        "@prompts.Prompt()",
        "@train.train",
        "é",
        "\u2028",
        "\x1b[31m",
        "--help",
        "-",
        "..",
        "/",
        ".",
    ),
    *(
        "/nonexistent/x",
        "/dev/null/x",
        "/proc/self/mem",
        "~nobody/x",
        "$HOME",
        "task.gin",
        "trained",
    ),
    *(
        "rows",
        "x" * 300,
        "x/" * 300,
        "[" * 200,
        "'" + "y" * 5000 + "'",
        "lambda: 0",
        "1 if 1 else 2",
    ),
)
# To wait for other processes, and to start a cluster, is what these are for.
_LEFT_OUT = {"--multiprocess_gpu", "--ray", "--ray_resources"}
_VIEWS = "cache check list show stats".split()


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :] if data else b"\x04"


# What becomes of a file: its new content, or what stands in its place.
CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "flipped": _flipped,
    "twice": lambda data: data * 2,
    "zeros": lambda data: bytes(len(data)),
    "null": lambda _: b"null\n",
    "list": lambda _: b"[]\n",
    "object": lambda _: b"{}\n",
    "numbers": lambda _: b"[1, 2.5, NaN, 1e999, -0]\n",
    "text": lambda _: b"what is this?\n",
    "deep": lambda _: b"[" * 100_000,
    "long": lambda _: b'{"inputs": "' + b"a" * 3_000_000 + b'"}\n',
    "UTF-16": lambda data: codecs.BOM_UTF16_LE + data.decode("latin-1").encode("utf-16-le"),
    "not UTF-8": lambda data: data.replace(b"e", b"\xe9"),
    "NUL": lambda data: data.replace(b" ", b"\0"),
    "other ends of lines": lambda data: data.replace(b"\n", b"\r"),
    "Git LFS": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "other JSON": lambda data: re.sub(rb": *[^,{}\[\]]+", b": [1]", data),
    "large numbers": lambda data: re.sub(rb"\b\d+\b", b"1000000000000", data),
    "below zero": lambda data: re.sub(rb"\b\d+\b", b"-1", data),
}
PLACES: dict[str, Callable[[pathlib.Path], object]] = {
    "nothing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "circle": lambda path: path.symlink_to(path),
}


class Names:
    """What there is to be set: the flags of every command, by its help, and the parameters of runs, by their config."""

    def __init__(self, world: World, server: Server):
        """Asks the commands."""
        views = {f"tasks {view}": ["tasks", view] for view in _VIEWS}
        asked = {**{name: [name] for name in COMMANDS}, **views}
        self.flags = {}
        for name, argv in asked.items():
            helped = server.run([*argv, "--help"], folder=world.folder).output
            self.flags[name] = sorted({*re.findall(r"--\w+", helped)} - _LEFT_OUT)
        config = (world.folder / "trained" / "config.gin").read_text()
        block = ""
        self.settings = []
        for line in config.splitlines():
            if found := re.match(r"([\w./]+):$", line):
                block = f"{found[1]}."
            elif found := re.match(r"( *)([\w./]+) = ", line):
                self.settings.append(f"{block if found[1] else ''}{found[2]}")


def make(
    world: World, names: Names, choose: Choose, text: Callable[[], str], out: str, *, dry: bool
) -> list[str]:
    """Returns a bad command; the files that it names are below `out` in the world.

    Args:
      world: Where it is to run.
      names: What there is to be set.
      choose: Chooses one of several.
      text: Makes up a text.
      out: Name of a folder that is not there yet.
      dry: Whether runs are only to check what they are given.
    """
    command = choose(COMMANDS)
    argv = world.argv(command, out)
    if command == "tasks":
        argv[1] = choose(_VIEWS)
        if argv[1] == "cache":
            argv += [f"--output_dir={out}/cache"]
    if command == "demo":
        # There is nothing else to it, and where it is right it takes a minute.
        argv[1] = f"--dir={choose(['task.gin', 'task.gin/x', 'trained', 'x' * 300, '/proc/x', ''])}"
        return argv
    if dry and command in ("train", "eval", "infer", "ensemble", "sweep"):
        argv.append("--dry_run")
    for _ in range(choose((1, 1, 1, 2))):
        ways = [_set_flag, _damage, _damage, _drop]
        if any(arg.startswith("--gin.") for arg in argv):
            ways += [_bind, _bind, _bind]
        argv = choose(ways)(argv, world, names, choose, text, out)
    return argv


def _value(choose: Choose, text: Callable[[], str]) -> str:
    return text() if choose((False, False, True)) else choose(VALUES)


def _set_flag(argv, world, names, choose, text, out) -> list[str]:
    """A flag with another value, once more, or with none."""
    # A view may have been dropped, and so may all that stands behind a command.
    flags = names.flags.get(" ".join(argv[:2]), names.flags[argv[0]])
    flag = choose([*flags, "--nonsense"])
    value = _value(choose, text)
    bad = choose((f"{flag}={value}", f"{flag}={value}", f"{flag}={value}", flag, value or "-"))
    return [*(arg for arg in argv if not arg.startswith(f"{flag}=")), bad]


def _bind(argv, world, names, choose, text, out) -> list[str]:
    """A setting with another value."""
    given = [arg.partition("=")[0].removeprefix("--gin.") for arg in argv if "--gin." in arg]
    name = choose(given) if choose((True, False)) else choose([*names.settings, text()])
    return [*argv, f"--gin.{name}={_value(choose, text)}"]


def _drop(argv, world, names, choose, text, out) -> list[str]:
    """One flag less."""
    return (
        argv
        if len(argv) < 2
        else (left := list(argv))[: (n := choose(range(1, len(left))))] + left[n + 1 :]
    )


def _damage(argv, world, names, choose, text, out) -> list[str]:
    """One of the files that the command reads is another, or is none."""
    found: list[tuple[int, str, pathlib.Path]] = []
    for number, arg in list(enumerate(argv))[1:]:
        for word in re.findall(r"[\w./-]+", arg.partition("=")[2] if "=" in arg else arg):
            places = [root / word for root in (world.folder, REPO) if os.path.exists(root / word)]
            is_name = not word.startswith(("/", ".", out))
            found += [(number, word, places[0])] if places and is_name else []
    if "task.gin" in "".join(argv):
        # What the task's file names is read too.
        found += [(-1, name, world.folder / name) for name in ("train.jsonl", "validation.jsonl")]
    if not found:
        return argv
    number, word, source = choose(found)
    (world.folder / out).mkdir(exist_ok=True)
    copy = world.folder / out / f"bad_{len(os.listdir(world.folder / out))}" / source.name
    copy.parent.mkdir()
    files = [copy]
    if source.is_dir():
        shutil.copytree(source, copy)
        files = sorted(path for path in copy.rglob("*") if path.is_file())
    else:
        shutil.copy(source, copy)
    file = choose(files)
    if choose((True, True, True, False)):
        file.write_bytes(CONTENTS[choose(list(CONTENTS))](file.read_bytes()))
    else:
        file.unlink()
        PLACES[choose(list(PLACES))](file)
    name = str(copy.relative_to(world.folder))
    if number < 0:
        return [*argv, f"--gin.tasks.from_files.{word.partition('.')[0]}={name!r}"]
    return [arg.replace(word, name) if n == number else arg for n, arg in enumerate(argv)]


def random_text(generator: Any) -> Callable[[], str]:
    """Returns what makes up texts from a seed."""
    letters = "aZ09 _-.,:;=/\\'\"()[]{}%@#$&|<>~!?\t\n\u00e9\u2019\u4e2d\U0001f600"

    def text() -> str:
        return "".join(generator.choice(letters) for _ in range(generator.randrange(12)))

    return text
