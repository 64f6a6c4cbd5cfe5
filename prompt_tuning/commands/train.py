"""Train a prompt (or a whole model) and evaluate it on the way."""

from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import parse_run


def main(argv: Sequence[str]) -> None:
    """Trains what the gin files describe; flags and errors as `prompt_tuning.train.train` has them."""
    flags = parse_run("train", argv, description=__doc__)
    command_line.run("train", flags, "prompt_tuning.train:train")
