"""How much one render of a template may do, and the sizes of what it handles."""

from collections.abc import Iterator
from typing import Any

from jinja2 import runtime, sandbox

# Characters that one render may weigh, and that it may make. T0's longest records, of 100,000 characters, come to a
# tenth of it.
MAX_WORK = 4_000_000
# What an item of a list or a step of a loop counts for, which take longer than a character.
ITEM = 8
# Bits of a number: all that 64 bits hold, and sums and products of them. Python divides longer ones slowly.
_MAX_BITS = 256
# Where a `range` begins and ends: among larger numbers are those that Python's dicts confuse.
_MAX_RANGE = 2**32
# Characters that `strip` may look for, and digits behind the point of `round`.
_MAX_STRIPPED, _MAX_DIGITS = 100, 100

CONTAINERS = (list, tuple, dict, range, type({}.keys()), type({}.values()), type({}.items()))
# What is weighed as one item: its own items are weighed when they are drawn, if ever.
SINGLE = (bool, float, Iterator, runtime.LoopContext, runtime.Undefined, type(None))


class Refused(sandbox.SecurityError):
    """A template does what no template may."""


class TooMuch(Refused):
    """A template runs too long, or makes too much text."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_WORK:,} characters, or {MAX_WORK // ITEM:,} items")


def size_of(value: Any, limit: int = MAX_WORK) -> int:
    """Returns the characters of a value, those inside of it included, and `ITEM` for every item.

    A list that holds another twice counts it twice: so much text it would make.

    Args:
      value: What an expression of a template has come to.
      limit: Where counting ends; the result is then a larger number.

    Raises:
      Refused: It is, or holds, nothing that a template may handle.
    """
    size, waiting = 0, [value]
    while waiting and size <= limit:
        item = waiting.pop()
        size += ITEM
        if isinstance(item, str):
            size += len(item)
        elif isinstance(item, SINGLE):
            continue
        elif isinstance(item, int):
            if item.bit_length() > _MAX_BITS:
                raise Refused(f"a number of more than {_MAX_BITS} bits is used")
        elif isinstance(item, range):
            size += ITEM * len(item)
        elif isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, CONTAINERS):
            waiting += item
        else:
            raise Refused(f"a value of the kind {type(item).__name__!r} is used")
    return size


def check_size(size: int) -> None:
    """Raises TooMuch where something would become larger than everything may.

    Args:
      size: Characters that it would have.
    """
    if size > MAX_WORK:
        raise TooMuch


def check_replace(text: str, old: Any, new: Any) -> None:
    """Raises TooMuch where a text would become too long; arguments as `str.replace`."""
    check_size(len(text) + (len(text) // max(1, len(str(old))) + 1) * len(str(new)))


def check_strip(characters: Any) -> None:
    """Raises Refused where every character of a text would be compared with many; argument as `str.strip`."""
    if characters is not None and len(characters) > _MAX_STRIPPED:
        raise Refused(f"more than {_MAX_STRIPPED} characters are stripped")


def check_digits(precision: int) -> None:
    """Raises Refused where a number would be rounded to very many digits."""
    if abs(precision) > _MAX_DIGITS:
        raise Refused(f"`round` is used with more than {_MAX_DIGITS} digits")


def check_product(left: Any, right: Any) -> None:
    """Raises TooMuch where `left * right` would be a text or a list that is too long."""
    for items, number in ((left, right), (right, left)):
        if isinstance(items, str | list | tuple) and isinstance(number, int):
            check_size(size_of(items) * max(0, number))


def limited_range(*numbers: int) -> range:
    """Returns `range(*numbers)`, which Jinja's sandbox lets have 100,000 items.

    Raises:
      Refused: One of the numbers is too large.
      OverflowError: It has more items.
    """
    if any(abs(number) > _MAX_RANGE for number in numbers):
        raise Refused(f"`range` is used with numbers over {_MAX_RANGE:,}")
    return sandbox.safe_range(*numbers)
