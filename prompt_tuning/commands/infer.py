"""Write predictions or scores for a task or a file."""

import argparse
from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import named_list, parse_run, whole_number


def main(argv: Sequence[str]) -> None:
    """Infers what the gin files describe; errors as `prompt_tuning.infer.infer` has them."""
    flags = parse(argv)
    bindings = []
    if flags.shard_id is not None:
        bindings.append((f"infer.infer.shard_id = {flags.shard_id}", "--shard_id"))
    if flags.prompts:
        bindings.append((f"infer.infer.prompts = {flags.prompts!r}", "--prompts"))
    command_line.run("infer", flags, "prompt_tuning.infer:infer", bindings=bindings)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Returns the command's flags.

    Raises:
      ConfigError: If a flag is unknown or two contradict one another.
    """
    return parse_run("infer", argv, description=__doc__, add_flags=_add_flags)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what `infer` takes beside the flags of every run."""
    add = parser.add_argument
    add(
        "--shard_id",
        type=whole_number(0),
        help="the shard this process writes; overrides infer.shard_id",
    )
    add(
        "--prompts",
        type=named_list,
        metavar="TASK=FILE,...",
        help="a prompt for each `task` that the examples of INFER_INPUT_FILE name; overrides infer.prompts",
    )
