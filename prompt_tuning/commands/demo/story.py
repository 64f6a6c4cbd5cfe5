"""What the demo prints: prompt tuning, told to somebody who has never heard of it.

The words are in `story.txt`, part by part, with what was measured in braces. Paragraphs are filled; where a line starts
with blanks, lines stay as they are.
"""

import pathlib
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from prompt_tuning.commands.demo.measuring import Example

_COLUMNS = 100
_NUM_SHOWN = 6


def tell(part: int, **values: Any) -> None:
    """Prints a part of the story.

    Args:
      part: Its number, from 1.
      **values: What stands in braces there.
    """
    text = pathlib.Path(__file__).with_name("story.txt").read_text(encoding="utf-8")
    for paragraph in f"==={text.split('===')[part]}".strip().split("\n\n"):
        told = paragraph.format(**values)
        is_block = "\n  " in f"\n{told}"
        print("", told if is_block else textwrap.fill(told, _COLUMNS), sep="\n", flush=True)


def block(lines: Iterable[str]) -> str:
    """Returns lines as one value for `tell`, in a block of their own."""
    return "\n  ".join(lines)


def examples(test: Sequence[Example]) -> str:
    """Returns the first few examples, as `block`."""
    return block(f"{example.right:<9} {example.sentence}" for example in test[:_NUM_SHOWN])


def answers(given: Sequence[str], test: Sequence[Example]) -> str:
    """Returns the first few answers and whether they are right, as `block`."""
    return block(
        f"{'right' if answer == example.right else 'wrong'}  {example.sentence}  ->  {answer!r}"
        for answer, example in list(zip(given, test, strict=True))[:_NUM_SHOWN]
    )
