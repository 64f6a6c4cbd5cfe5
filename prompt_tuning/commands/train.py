"""Train a prompt (or a whole model) and evaluate it on the way."""

from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import add_tracker, parse_run, tracker_bindings


def main(argv: Sequence[str]) -> None:
    """Trains what the gin files describe; flags and errors as `prompt_tuning.train.train` has them."""
    flags = parse_run("train", argv, description=__doc__, add_flags=add_tracker)
    bindings = tracker_bindings(flags.tracker)
    command_line.run("train", flags, "prompt_tuning.train:train", bindings=bindings)
