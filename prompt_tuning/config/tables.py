"""What gin files may name, as `names.toml` beside this file lists it."""

import functools
import pathlib
import tomllib
from typing import Any


def table(name: str) -> dict[str, Any]:
    """Returns one table of the file, which is read at first use: importing this package reads nothing."""
    return _tables()[name]


@functools.cache
def kinds() -> dict[str, tuple[str, bool]]:
    """Returns the kind of every macro and parameter that is checked, and whether None is allowed."""
    return {
        name.rstrip("?"): (kind, name.endswith("?"))
        for part in ("macros", "parameters")
        for kind, names in table(part).items()
        for name in names.split()
    }


@functools.cache
def _tables() -> dict[str, Any]:
    """The whole file."""
    return tomllib.loads(pathlib.Path(__file__).with_name("names.toml").read_text(encoding="utf-8"))
