"""What all launchers of TPUs have in common: their flags, the checks before anything is spent, the dry run."""

import abc
import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import ClassVar

from prompt_tuning.errors import PromptTuningError
from prompt_tuning.launch import commands, preflight, programs, tpu_slices
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.programs import Program


class Launcher(abc.ABC):
    """One way to a TPU slice.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If there is no such slice.
    """

    # Printed at the end of a dry run.
    last_words: ClassVar[str] = ""

    def __init__(self, flags: argparse.Namespace, program: Program):
        self.flags = flags
        self.program = program
        self.name: str = flags.name
        self.tpu = tpu_slices.parse(flags.topology)

    @abc.abstractmethod
    def checks(self) -> list[Check]:
        """Checks beside those of every launcher."""

    @abc.abstractmethod
    def commands(self) -> list[Command]:
        """All commands after the checks, for a dry run."""

    @abc.abstractmethod
    def run(self) -> int:
        """Runs the commands; returns the exit code."""


def launch(
    add_flags: Callable[[argparse.ArgumentParser], None],
    make: Callable[[argparse.Namespace, Program], Launcher],
    description: str | None,
    argv: Sequence[str] | None,
) -> int:
    """Runs a launcher.

    Args:
      add_flags: Adds the flags that not every launcher has.
      make: Makes the launcher from its flags and what runs.
      description: For --help.
      argv: Flags, `--`, command; None takes those of the process.

    Returns:
      The launcher's exit code; 2 for an error that the user can mend; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Not argparse's to split: a later `--` is the program's own.
    at = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_shared_flags(parser)
    add_flags(parser)
    flags = parser.parse_args(words[:at])
    try:
        launcher = make(flags, programs.read_program(words[at + 1 :]))
        checks = [*preflight.checks(launcher.program, launcher.tpu, flags), *launcher.checks()]
        if flags.dry_run:
            commands.show([*checks, *launcher.commands()])
            print(launcher.last_words, end="")
            return 0
        commands.run_checks(checks)
        return launcher.run()
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # As a shell reports a program that Ctrl-C ended.
        return 130


def _add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every launcher has."""
    add = parser.add_argument
    add("--project", required=True, help="Google Cloud project ID")
    add("--name", required=True, type=_name, help="name for what is created")
    slices = "TPU slice as `prompt-tuning plan` names it, such as v5e:2x4"
    add("--topology", required=True, help=slices)
    add("--spot", action="store_true", help="spare capacity: cheaper, and taken away at any time")
    add("--skip_plan", action="store_true", help="do not ask `prompt-tuning plan` whether it fits")
    add("--dry_run", action="store_true", help="print every command and run none")


def _name(text: str) -> str:
    """Checks a name by the rule that Google's interfaces share."""
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a name: small letters, digits and -, at most 40, a letter first"
        )
    return text
