"""The command `prompt-tuning ensemble`: an evaluation whose prompts vote."""

import argparse
from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import comma_separated, parse_run


def main(argv: Sequence[str]) -> None:
    """Evaluates several prompts; errors as `voting.evaluate_ensemble` has them."""
    flags = parse_run("ensemble", argv, description=__doc__, add_flags=_add_flags)
    command_line.run(
        # An ensemble is described by the gin files of an evaluation.
        "eval",
        flags,
        "prompt_tuning.commands.ensemble.voting:evaluate_ensemble",
        given=(flags.prompts,),
        comment=f"Resolved for `prompt-tuning ensemble --prompts={','.join(flags.prompts)}`.",
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what `ensemble` takes beside the flags of every run."""
    parser.add_argument(
        "--prompts",
        type=comma_separated,
        required=True,
        metavar="FILE,...",
        help="the prompts that vote",
    )
