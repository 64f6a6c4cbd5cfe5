"""Files that the package brings along, beside gin files: the ladder's vocabulary and weights."""

import os
import pathlib

# What is named so is looked up in the installed package, from whatever folder a command is run.
LADDER = "prompt_tuning/ladder"
_FOLDER = pathlib.Path(__file__).parent


def locate(path: str | os.PathLike[str]) -> str:
    """Returns where a shipped file or folder is on this machine; other paths as they are.

    Args:
      path: `prompt_tuning/ladder/...`, as docs and gin files name what is shipped; or any other path or address.
    """
    text = os.fspath(path)
    if text == LADDER or text.startswith(f"{LADDER}/"):
        return str(_FOLDER.parent.parent / text)
    return text
