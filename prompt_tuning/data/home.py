"""The home folder in paths, as people write it: `~` or `$HOME`, which no shell sees in gin text or behind a `=`."""

import os
import re

_HOME = r"(?:~|\$HOME|\$\{HOME\})"


def expand(path: str) -> str:
    """Returns a path with the home folder in place of `~`, `$HOME` or `${HOME}` at its start; `~name` is name's.

    Args:
      path: A path or address; one that starts otherwise is returned as it is.
    """
    if re.match(rf"{_HOME}(?=/|$)", path):
        return re.sub(_HOME, lambda _: os.path.expanduser("~"), path, count=1)
    return os.path.expanduser(path) if path.startswith("~") else path


def expand_flag(arg: str) -> str:
    """Returns a word of a command line with its paths expanded: the word, what stands behind `=`, or items of a list.

    Args:
      arg: A word; one that holds gin text is returned as it is: there texts are in quotes of their own.
    """
    if arg.startswith(("--gin.", "--gin_bindings")):
        return arg
    found = os.path.expanduser("~")
    return re.sub(rf"(^|[=,]){_HOME}(?=[/,]|$)", lambda match: match[1] + found, arg)
