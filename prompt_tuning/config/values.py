"""Values that a setting cannot have, whatever the run: told by what was read, before anything is imported."""

import math
from collections.abc import Callable
from typing import Any

from prompt_tuning.config import tables
from prompt_tuning.config.files import Binding, Macro, Parsed, Reference, leaves
from prompt_tuning.errors import ConfigError, check_choice

# Steps, positions and rows are counted in int32.
_MOST = 2**31 - 1


def _is_int(value: Any, at_least: int, at_most: int) -> bool:
    """Whether `value` is a whole number (not a truth value) of an interval."""
    return isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most


def _is_number(value: Any) -> bool:
    """Whether `value` is a finite number (not a truth value)."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < math.inf


def _is_text(value: Any) -> bool:
    """Whether `value` is text with something in it."""
    return isinstance(value, str) and bool(value.strip())


# Kind of value, as `names.toml` calls it -> (test, what is expected).
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "text": (_is_text, "text, in quotes of its own and not empty"),
    "count": (
        lambda value: _is_int(value, 1, _MOST),
        "a whole number >= 1, without quotes (and below 2**31)",
    ),
    "count_from_0": (
        lambda value: _is_int(value, 0, 2**32 - 1),
        "a whole number >= 0, without quotes (and below 2**32)",
    ),
    "number": (
        lambda value: _is_number(value) and value >= 0,
        "a number, without quotes (of 0 or more)",
    ),
    "share": (lambda value: _is_number(value) and 0 <= value < 1, "a number in [0, 1)"),
    "rate": (lambda value: _is_number(value) and value > 0, "a number above 0, without quotes"),
    "exponent": (lambda value: _is_number(value) and 0 < value <= 1, "a number in (0, 1]"),
    "rate_or_text": (
        lambda value: _is_text(value) or (_is_number(value) and value > 0),
        "a number above 0, without quotes, or a name",
    ),
    "truth": (lambda value: isinstance(value, bool), "True or False, without quotes"),
    "texts": (
        lambda value: isinstance(value, list | tuple) and bool(value) and all(map(_is_text, value)),
        "a list of texts, like ['a', 'b'], none of them empty",
    ),
    "labels": (
        lambda value: isinstance(value, dict) and len(value) > 1,
        "labels and their texts, like {0: 'negative', 1: 'positive'}",
    ),
    # References are not asked.
    "object": (lambda value: False, "a reference to what makes it, @name()"),
    "lengths": (
        lambda value: (
            isinstance(value, dict)
            and bool(value)
            and all(isinstance(n, str) and _is_int(length, 1, _MOST) for n, length in value.items())
        ),
        "lengths in tokens, like {'inputs': 512, 'targets': 8}",
    ),
}


def check(parsed: Parsed) -> None:
    """Checks the last value of each macro and parameter that `names.toml` gives a kind; references are left to the run.

    Args:
      parsed: What was read.

    Raises:
      ConfigError: For the first value of another kind, or that is none of a few texts.
    """
    last: dict[tuple[str, str, str], Binding] = {}
    for statement in parsed.statements:
        if isinstance(statement, Binding):
            last[statement.scope, statement.selector, statement.arg] = statement
    for (scope, selector, arg), binding in last.items():
        name = selector.split(".")[-1] + (f".{arg}" if arg else "")
        shown = (f"{scope}/" if scope else "") + selector + (f".{arg}" if arg else "")
        # A macro inside a scope is another macro.
        if arg or not scope:
            check_value(name, binding.value, binding.where, shown=shown)


def check_value(name: str, value: Any, where: str, *, shown: str | None = None) -> None:
    """Raises ConfigError if a value is not of the kind of its macro or parameter.

    Args:
      name: A macro, or `configurable.parameter` without what stands before it.
      value: What it is bound to.
      where: `file:line`, or the flag.
      shown: The name as it was written.
    """
    if any(isinstance(x, Macro | Reference) for x in leaves(value)):
        return
    if name in tables.table("choices"):
        check_choice(shown or name, value, tables.table("choices")[name])
    if name not in tables.kinds():
        return
    kind, allows_none = tables.kinds()[name]
    is_valid, expected = _KINDS[kind]
    if is_valid(value) or (value is None and allows_none):
        return
    raise ConfigError(
        f"{shown or name} has a value of the wrong type ({where})",
        got=value,
        expected=expected + (", or None" if allows_none else ""),
        fix=f"correct {shown or name}",
    )
