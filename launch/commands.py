"""Commands as lists of words: shown for a dry run, or run."""

import dataclasses
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

from prompt_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Command:
    """One command.

    Args:
      argv: The words. No shell comes between them and the program.
      why: What it is for, one sentence without a full stop.
      stdin: Text for its standard input; nothing is ever read from the keyboard.
    """

    argv: tuple[str, ...]
    why: str
    stdin: str = ""

    def shown(self) -> str:
        """Returns the command as bash reads it, below a comment that says what it is for."""
        text = shlex.join(self.argv)
        if self.stdin:
            text += f" <<'END_OF_INPUT'\n{self.stdin}\nEND_OF_INPUT"
        return f"# {self.why}.\n{text}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check(Command):
    """A command that must succeed before anything is spent, and changes nothing that costs money.

    Args:
      expected: What is allowed, for the error.
      fix: One action, for the error.
      accepts: Judges the command's output.
    """

    expected: str
    fix: str
    accepts: Callable[[str], bool] = lambda output: True


def show(commands: Iterable[Command]) -> None:
    """Prints commands for a dry run; the output is a script that bash can run."""
    for command in commands:
        print(f"{command.shown()}\n")


def run(command: Command) -> None:
    """Runs a command before the user's eyes.

    Raises:
      ConfigError: If it fails.
    """
    print(f"--- {command.why}", flush=True)
    code = _run(command, capture_output=False).returncode
    if code:
        raise ConfigError(
            "A command of the launcher failed",
            got=f"exit code {code} of {shlex.join(command.argv)}",
            expected="exit code 0",
            fix="mend what its output above names, and launch again",
        )


def run_checks(checks: Sequence[Check]) -> None:
    """Runs checks in order.

    Args:
      checks: The checks.

    Raises:
      ConfigError: At the first that fails, with the last lines of its output.
    """
    for check in checks:
        print(f"--- {check.why}", flush=True)
        done = _run(check, capture_output=True)
        code, output, error = done.returncode, done.stdout, done.stderr
        if code or not check.accepts(output):
            if code:
                print(error, file=sys.stderr)
            lines = ((error if code else "") or output).strip().splitlines()
            raise ConfigError(
                "A check before spending failed",
                got=f"{shlex.join(check.argv)} -> {' '.join(lines[-3:])}",
                expected=check.expected,
                fix=check.fix,
            )


def _run(command: Command, *, capture_output: bool) -> subprocess.CompletedProcess[str]:
    """Runs a command; says which program is missing."""
    if shutil.which(command.argv[0]) is None:
        raise ConfigError(
            "A program that the launcher calls is missing",
            got=command.argv[0],
            expected="a program on PATH",
            fix="install it as docs/machines/launch.md says",
        )
    return subprocess.run(
        command.argv, input=command.stdin, capture_output=capture_output, text=True, check=False
    )
