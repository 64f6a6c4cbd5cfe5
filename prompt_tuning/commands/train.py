"""Train a prompt (or a whole model) and evaluate it on the way."""

from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import parse_run


def main(argv: Sequence[str]) -> None:
    """Trains what the gin files describe; flags and errors as `prompt_tuning.train.train` has them."""
    command_line.run("train", parse_run("train", argv, description=__doc__), _import)


def _import() -> Callable[..., Any]:
    from prompt_tuning import train

    return train.train
