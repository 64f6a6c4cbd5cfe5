"""What the launchers have in common that hand a run to a GKE cluster and end."""

import abc
import argparse
import re
import sys
from collections.abc import Callable, Sequence

from prompt_tuning.errors import PromptTuningError
from prompt_tuning.launch import commands, preflight, programs, tpu_slices
from prompt_tuning.launch.commands import Check, Command
from prompt_tuning.launch.programs import Program


class Launcher(abc.ABC):
    """One way to the TPUs of a cluster that restarts the run by itself.

    Args:
      flags: The launcher's flags.
      program: What runs.

    Raises:
      ConfigError: If there is no such slice, or GKE does not offer it.
    """

    def __init__(self, flags: argparse.Namespace, program: Program):
        self.flags = flags
        self.program = program
        self.name: str = flags.name
        self.tpu = tpu_slices.parse(flags.topology)
        self.machine_type = self.tpu.machine_type

    @abc.abstractmethod
    def checks(self) -> list[Check]:
        """Checks beside those of every launcher."""

    @abc.abstractmethod
    def submit(self) -> Command:
        """Command that hands the run to the cluster."""

    @abc.abstractmethod
    def later(self) -> list[Command]:
        """Commands for the user: they show the run's output, and stop it."""


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
      Exit code: 0; 2 for an error that the user can mend; 130 after Ctrl-C.
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
            commands.show([*checks, launcher.submit(), *launcher.later()])
            return 0
        commands.run_checks(checks)
        commands.run(launcher.submit())
        commands.show(launcher.later())
        return 0
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # As a shell reports a program that Ctrl-C ended.
        return 130


def escape(word: str) -> str:
    """Returns a word that Kubernetes hands to the container as it was.

    In `command` and `args` it replaces `$(NAME)` by variables and `$$` by `$`.

    Args:
      word: Any text.

    Returns:
      The text with its dollar signs doubled.
    """
    return word.replace("$", "$$")


def _add_shared_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every launcher has."""
    add = parser.add_argument
    add("--project", required=True, help="Google Cloud project ID")
    add("--location", required=True, help="region or zone of the cluster")
    add("--cluster", required=True, help="name of the GKE cluster")
    add("--name", required=True, type=_name, help="name for what is created")
    slices = "TPU slice as `prompt-tuning plan` names it, such as v5e:2x4"
    add("--topology", required=True, help=slices)
    add("--image", required=True, help="container image with prompt-tuning: launch/Dockerfile")
    add("--service_account", help="Kubernetes service account that may write to the bucket")
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
