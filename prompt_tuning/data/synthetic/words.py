"""The words and sentences of the world, which are data: JSON files in `assets/`, one a topic."""

import functools
import json
import pathlib
from typing import Any

_FOLDER = pathlib.Path(__file__).parent / "assets"


@functools.cache
def load(topic: str) -> Any:
    """Returns what `assets/{topic}.json` holds, read once, when it is first needed.

    - `lexicon`: the plain words of each kind; few and frequent, so that a small vocabulary holds each as one piece.
    - `beliefs`: what stands before a clause (and behind it), by whether the clause is so; `None` where nobody can tell.
    - `causes`: (cause, its effect, the opposite cause, the effect of that); {x} is a person.
    - `pronouns`: what the first does to the second -> reasons that speak of the first, and of the second.
    - `relations`: `orders` (what holds of an earlier and a later one of a row, the same said of the later and the
      earlier one), and `deals` (what the first does with a thing and the second, the same said from the other side).
    - `reviews`: adjectives that are `good` or `bad`, what is judged as a whole -> parts of it, which parts are
      `plural`, and `outcomes`: what people do or say after something bad, and after something good.
    - `senses`: word -> two senses: (what it is, clauses with the word); {x} is a person.

    Args:
      topic: Name of the file. Its order is part of the data: what is drawn follows from it.
    """
    return json.loads((_FOLDER / f"{topic}.json").read_text(encoding="utf-8"))
