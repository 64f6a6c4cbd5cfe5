"""Whom a pronoun means: two people, what one did to the other, and why (the form of WSC)."""

import dataclasses
import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import Person, World, bystanders, draw


@dataclasses.dataclass(frozen=True)
class Deed:
    """A sentence with a pronoun.

    Attributes:
      clause: "Ann thanked Clara".
      reason: "had helped".
      meant: Whom the pronoun means.
      other: Whom it does not mean.
    """

    clause: str
    reason: str
    meant: Person
    other: Person

    @property
    def text(self) -> str:
        """The sentence."""
        return f"{self.clause} because {self.meant.he} {self.reason}."


def deed(rng: random.Random, world: World, owner: str) -> Deed:
    """Returns a deed whose sentence belongs to an owner.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom it belongs.
    """

    def make(rng: random.Random) -> Deed:
        is_woman = rng.random() < 0.5
        one, two = rng.sample([p for p in world.people if p.is_woman == is_woman], 2)
        verb, reasons = rng.choice(list(words.load("pronouns").items()))
        means_first = rng.random() < 0.5
        reason = rng.choice(reasons[0 if means_first else 1])
        meant, other = (one, two) if means_first else (two, one)
        return Deed(f"{one.name} {verb} {two.name}", reason, meant, other)

    return draw(rng, owner, make, key=lambda made: made.text)


def wsc(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of WSC: a sentence with a pronoun, and whom it may mean.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the sentence belongs.
      label: 1 where the candidate is the right one.
    """
    made = deed(rng, world, owner)
    tokens = made.text.split(" ")
    index = tokens.index("because") + 1
    candidate = made.meant if label else made.other
    return [
        {
            "text": made.text,
            "span1_text": candidate.name,
            "span1_index": tokens.index(candidate.name),
            "span2_text": tokens[index],
            "span2_index": index,
            "label": label,
        }
    ]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns two or three deeds, and who is meant.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the text belongs.
    """
    return " ".join(_told(rng, world, deed(rng, world, owner)) for _ in range(2))


def _told(rng: random.Random, world: World, made: Deed) -> str:
    """A deed with the name in place of the pronoun, or behind it."""
    kind = rng.randrange(4)
    if kind == 0:
        return f"{made.clause} because {made.meant.name} {made.reason}."
    if kind == 1:
        return f"{made.text} It was {made.meant.name} who {made.reason}."
    if kind == 2:
        return f"{made.text} {made.meant.name} {made.reason}, not {made.other.name}."
    one, two = bystanders(rng, world, made.text)
    return (
        f'{made.text} "Who {made.reason}?" asked {one.name}. "{made.meant.name}," said {two.name}.'
    )
