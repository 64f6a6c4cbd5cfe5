"""The command `prompt-tuning serve`: an HTTP server for one frozen model and any number of prompts."""

import argparse
import importlib.util
from collections.abc import Sequence

from prompt_tuning.config import command_line
from prompt_tuning.config.flags import named_list, parse_run, whole_number
from prompt_tuning.errors import ConfigError

_RUN_FILE = "prompt_tuning/configs/runs/prompt_serve.gin"
# What the extra `serve` brings.
_LIBRARIES = ("starlette", "uvicorn", "sse_starlette", "prometheus_client", "pydantic")


def main(argv: Sequence[str]) -> None:
    """Serves what the gin files describe; errors as `server.serve` has them."""
    flags = parse(argv)
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            "What serves HTTP is not installed",
            got=f"no {', '.join(missing)}",
            expected="the packages of the extra `serve`",
            fix="run `pip install 'prompt-tuning[serve]'`",
        )
    # First, so that whatever the user's files say wins.
    flags.gin_file.insert(0, _RUN_FILE)
    given = (flags.prompts, flags.prompts_dir, flags.host, flags.port, flags.api_key_file)
    command_line.run("serve", flags, "prompt_tuning.commands.serve.server:serve", given=given)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Returns the command's flags.

    Raises:
      ConfigError: If a flag is unknown or two contradict one another.
    """
    return parse_run("serve", argv, description=__doc__, add_flags=_add_flags)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what `serve` takes beside the flags of every run."""
    add = parser.add_argument
    add(
        "--prompts",
        type=named_list,
        default={},
        metavar="NAME=FILE,...",
        help="prompts to serve, each under the name that requests call `model`",
    )
    add(
        "--prompts_dir",
        metavar="FOLDER",
        help="folder that is watched: what lies in it is served by its name, and requests may load from it",
    )
    add("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for all of the machine")
    add("--port", type=whole_number(0), default=8000, help="port to listen at; 0 for a free one")
    add("--api_key_file", metavar="FILE", help="a key a line; requests must name one of them")
