"""What the launchers have in common whose machines are reached by ssh."""

import argparse
import sys
from collections.abc import Callable, Sequence

from prompt_tuning.errors import PromptTuningError
from prompt_tuning.launch import commands, preflight, programs, supervise
from prompt_tuning.launch.supervise import Machine

# A connection to a machine that was taken away ends after two minutes instead of never.
KEEP_ALIVE = ("--ssh-flag=-oServerAliveInterval=30", "--ssh-flag=-oServerAliveCountMax=4")


def launch(
    kind: Callable[[argparse.Namespace], Machine],
    description: str | None,
    argv: Sequence[str] | None,
) -> int:
    """Runs a launcher whose machine is reached by ssh.

    Args:
      kind: Makes the machine from the launcher's flags.
      description: For --help.
      argv: Flags, `--`, command; None takes those of the process.

    Returns:
      The program's exit code; 2 for an error that the user can mend; 130 after Ctrl-C.
    """
    own, rest = programs.split(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    programs.add_shared_flags(parser)
    programs.add_vm_flags(parser)
    flags = parser.parse_args(own)
    try:
        program = programs.read_program(rest)
        machine = kind(flags)
        job = supervise.Job(
            machine, program.argv, package=flags.package, max_crashes=flags.max_crashes
        )
        checks = [
            *preflight.checks(
                program, flags.topology, project=flags.project, skip_plan=flags.skip_plan
            ),
            *machine.checks(flags.zone),
        ]
        if flags.dry_run:
            commands.show(check.command for check in checks)
            supervise.show(job)
            return 0
        commands.run_checks(checks)
        return supervise.supervise(job, keep=flags.keep)
    except PromptTuningError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # As a shell reports a program that Ctrl-C ended.
        return 130
