"""Commands as lists of words: shown for a dry run, or run."""

import concurrent.futures
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
      stdin: Text for its standard input.
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


@dataclasses.dataclass(frozen=True)
class Check:
    """A command that must succeed before anything is spent.

    Args:
      command: Changes nothing that costs money.
      expected: What is allowed, for the error.
      fix: One action, for the error.
      accepts: Judges the command's output.
    """

    command: Command
    expected: str
    fix: str
    accepts: Callable[[str], bool] = lambda output: True


def show(commands: Iterable[Command]) -> None:
    """Prints commands for a dry run; the output is a script that bash can run."""
    for command in commands:
        print(f"{command.shown()}\n")


def capture(command: Command) -> tuple[int, str, str]:
    """Runs a command silently.

    Args:
      command: The command.

    Returns:
      Exit code, standard output and standard error.

    Raises:
      ConfigError: If the program is not installed.
    """
    _require(command)
    done = subprocess.run(
        command.argv, input=command.stdin, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def run(command: Command) -> int:
    """Runs a command before the user's eyes; returns its exit code."""
    _require(command)
    print(f"--- {command.why}", flush=True)
    # Without an input of its own a command must not wait for the keyboard.
    given: dict[str, object] = (
        {"input": command.stdin} if command.stdin else {"stdin": subprocess.DEVNULL}
    )
    return subprocess.run(command.argv, text=True, check=False, **given).returncode  # type: ignore[call-overload]


def run_all(commands: Sequence[Command], *, together: bool = False) -> None:
    """Runs commands, in turn or at the same time.

    Args:
      commands: The commands.
      together: Whether to start all of them before waiting for any.

    Raises:
      ConfigError: If one fails.
    """
    if together and len(commands) > 1:
        with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
            codes = list(pool.map(run, commands))
    else:
        codes = []
        for command in commands:
            codes.append(run(command))
            if codes[-1]:
                break
    for command, code in zip(commands, codes, strict=False):
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
        print(f"--- {check.command.why}", flush=True)
        code, output, error = capture(check.command)
        if code or not check.accepts(output):
            if code:
                print(error, file=sys.stderr)
            lines = ((error if code else "") or output).strip().splitlines()
            raise ConfigError(
                "A check before spending failed",
                got=f"{shlex.join(check.command.argv)} -> {' '.join(lines[-3:])}",
                expected=check.expected,
                fix=check.fix,
            )


def _require(command: Command) -> None:
    """Says which program is missing."""
    if shutil.which(command.argv[0]) is None:
        raise ConfigError(
            "A program that the launcher calls is missing",
            got=command.argv[0],
            expected="a program on PATH",
            fix="install it as docs/machines/launch.md says",
        )
