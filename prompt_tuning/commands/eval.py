"""Evaluate a prompt with a task's metrics."""

from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import parse_run


def main(argv: Sequence[str]) -> None:
    """Evaluates what the gin files describe; errors as `prompt_tuning.evaluate.evaluate` has them."""
    flags = parse_run("eval", argv, description=__doc__)
    command_line.run("eval", flags, "prompt_tuning.evaluate:evaluate")
