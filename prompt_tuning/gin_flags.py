"""`--gin.NAME=VALUE`, as every command with gin settings takes it."""

from collections.abc import Sequence

from prompt_tuning.errors import ConfigError

PREFIX = "--gin."


def binding(arg: str) -> tuple[str, str]:
    """Returns a flag as `config.read` takes it: the gin text, and the flag as it was typed.

    Args:
      arg: `--gin.NAME=VALUE`.

    Raises:
      ConfigError: If there is no value.
    """
    name, separator, value = arg.removeprefix(PREFIX).partition("=")
    if not separator:
        raise ConfigError(
            "A gin flag has no value",
            got=arg,
            expected="--gin.NAME=VALUE in one word",
            fix=f"write {arg}=VALUE",
        )
    return f"{name} = {value}", arg


def split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the other flags, and the bindings of those that are gin's, each in order.

    Args:
      argv: Flags.

    Raises:
      ConfigError: If a gin flag has no value.
    """
    others = [arg for arg in argv if not arg.startswith(PREFIX)]
    return others, [binding(arg) for arg in argv if arg.startswith(PREFIX)]
