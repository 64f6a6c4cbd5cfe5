"""What a run recorded by name and settings, built again."""

import pkgutil
from collections.abc import Mapping
from typing import Any

from prompt_tuning.config import tables
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.methods.method import Method


def build_method(described: Mapping[str, Any]) -> Method:
    """Returns the method that `Method.describe` described.

    Args:
      described: Its name and its settings.

    Raises:
      ConfigError: If there is no such method, or a setting is none of it.
    """
    settings = dict(described)
    name = f"methods.{settings.pop('name', None)}"
    targets = {
        gin_name: target
        for gin_name, target in tables.table("configurables")["prompt_tuning"].items()
        if gin_name.startswith("methods.")
    }
    if name not in targets:
        raise ConfigError(
            "A method of this name is not known here",
            got=name,
            expected=f"one of {', '.join(targets)}",
            fix="use the version that it was trained with",
            name=name,
            candidates=targets,
        )
    if "methods" in settings:
        settings["methods"] = [build_method(part) for part in settings["methods"]]
    try:
        return pkgutil.resolve_name(targets[name])(**settings)
    except TypeError as error:
        raise ConfigError(
            f"{name} does not have these settings ({error})",
            got=sorted(settings),
            expected="those of this version",
            fix="use the version that it was trained with",
        ) from error
