"""The examples of every synthetic task, by split."""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.data.synthetic import (
    beliefs,
    causes,
    pronouns,
    relations,
    reviews,
    senses,
    stories,
)
from prompt_tuning.data.synthetic.world import World, make_world
from prompt_tuning.errors import DataError

Row = Mapping[str, Any]
NO_YES = ("False", "True")
# Examples of each split. Questions with two answers each count twice.
NUM_EXAMPLES = {"train": 4000, "validation": 400, "test": 400}
_DRAWN_A_WORLD = 4
_SEED = 20210418


@dataclasses.dataclass(frozen=True)
class Form:
    """How one task is made.

    Attributes:
      examples: Makes the examples of one drawing, of an owner (a split), for a label.
      classes: Text of each class, by label.
    """

    examples: Callable[[random.Random, World, str, int], list[dict[str, Any]]]
    classes: tuple[str, ...]


FORMS: Mapping[str, Form] = {
    "boolq": Form(stories.boolq, NO_YES),
    "cb": Form(beliefs.cb, beliefs.YES_NO_MAYBE),
    "copa": Form(causes.copa, causes.FIRST_SECOND),
    "multirc": Form(stories.multirc, NO_YES),
    "rte": Form(relations.rte, relations.YES_NO),
    "sentiment": Form(reviews.sentiment, reviews.POLARITIES),
    "wic": Form(senses.wic, NO_YES),
    "wsc": Form(pronouns.wsc, NO_YES),
}


@functools.lru_cache(maxsize=len(FORMS) * len(NUM_EXAMPLES))
def rows(name: str, split: str) -> tuple[Row, ...]:
    """Returns the examples of a split, always the same.

    Labels come in rounds of all classes, and so equally often. No two examples of a split are equal, and no text that
    an example is about occurs in another split or in the pre-training text (see `world.draw`).

    Args:
      name: A key of `FORMS`.
      split: "train", "validation" or "test".

    Returns:
      {field: text, "label": int, "idx": int}; of `multirc` "idx" has the parts "paragraph", "question" and "answer".

    Raises:
      DataError: There is no such task or split.
    """
    for what, value, known in (("task", name, FORMS), ("split", split, NUM_EXAMPLES)):
        if value not in known:
            raise DataError(
                f"Unknown {what} of the synthetic suite",
                got=value,
                expected=f"one of {', '.join(known)}",
                fix=f"correct the {what}",
                name=value,
                candidates=known,
            )
    form = FORMS[name]
    rng = random.Random(f"{_SEED} {name} {split}")
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    labels: list[int] = []
    while len(found) < NUM_EXAMPLES[split]:
        world = make_world(rng, split)
        for _ in range(_DRAWN_A_WORLD):
            labels = labels or rng.sample(range(len(form.classes)), len(form.classes))
            group = form.examples(rng, world, split, labels.pop())
            keys = [tuple(value for key, value in row.items() if key != "label") for row in group]
            if found.keys().isdisjoint(keys) and len(found) < NUM_EXAMPLES[split]:
                question = len(found) // len(group)
                for answer, (key, row) in enumerate(zip(keys, group, strict=True)):
                    idx: Any = len(found)
                    if len(group) > 1:
                        idx = {"paragraph": question, "question": question, "answer": answer}
                    found[key] = {**row, "idx": idx}
    return tuple(found.values())
