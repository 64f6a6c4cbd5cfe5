"""Evaluate a prompt with a task's metrics."""

from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import parse_run


def main(argv: Sequence[str]) -> None:
    """Evaluates what the gin files describe; errors as `prompt_tuning.evaluate.evaluate` has them."""
    command_line.run("eval", parse_run("eval", argv, description=__doc__), _import)


def _import() -> Callable[..., Any]:
    from prompt_tuning import evaluate

    return evaluate.evaluate
