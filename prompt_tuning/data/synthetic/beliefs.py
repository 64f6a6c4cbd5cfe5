"""What people know, dream and hope: whether what they think is so (the form of CB)."""

import dataclasses
import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import World, bystanders, capital, draw

YES_NO_MAYBE = ("yes", "no", "maybe")


@dataclasses.dataclass(frozen=True)
class Belief:
    """What somebody thinks of where a thing was.

    Attributes:
      thing: "red cup".
      place: "mill".
      is_negated: Whether they think that it was not there.
      is_so: Whether what they think is so; None where nobody can tell.
      text: The sentence.
    """

    thing: str
    place: str
    is_negated: bool
    is_so: bool | None
    text: str

    @property
    def is_there(self) -> bool | None:
        """Whether the thing was at the place; None where nobody can tell."""
        return None if self.is_so is None else self.is_so != self.is_negated


def beliefs(rng: random.Random, world: World, owner: str) -> tuple[Belief, Belief]:
    """Returns two beliefs about two things: of the first one can tell whether it is so, not of the second.

    Args:
      rng: Where they are drawn from.
      world: Who and what there is.
      owner: To whom both together belong.
    """

    def make(rng: random.Random) -> tuple[Belief, Belief]:
        people, things = rng.sample(world.people, 2), rng.sample(world.things, 2)
        made = []
        for is_so, person, thing in zip((rng.random() < 0.5, None), people, things, strict=True):
            place, is_negated = rng.choice(world.places), rng.random() < 0.3
            before, behind = rng.choice(words.load("beliefs")[str(is_so)])
            clause = _clause(thing, place, is_negated)
            text = f"{person.name} {before} {clause}{behind}."
            made.append(Belief(thing, place, is_negated, is_so, text))
        return made[0], made[1]

    return draw(rng, owner, make, key=lambda pair: pair[0].text + pair[1].text)


def cb(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of CB: two beliefs, and a hypothesis about one of the two things.

    One belief is always of each kind, and the hypothesis is negated as often under each label.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the beliefs belong.
      label: Index in `YES_NO_MAYBE`.
    """
    known, unknown = beliefs(rng, world, owner)
    if label == 2:
        hypothesis = _clause(unknown.thing, unknown.place, rng.random() < 0.5)
    else:
        hypothesis = _clause(known.thing, known.place, known.is_there != (label == 0))
    return [{"premise": _both(rng, known, unknown), "hypothesis": hypothesis, "label": label}]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns two beliefs and what people say of them.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the text belongs.
    """
    known, unknown = beliefs(rng, world, owner)
    text = _both(rng, known, unknown)
    numbers = range(rng.choice((1, 2, 2)))
    says = [_remark(rng, world, text, rng.choice((known, unknown))) for _ in numbers]
    return " ".join([text, *says])


def _remark(rng: random.Random, world: World, text: str, belief: Belief) -> str:
    """What somebody concludes, or answers when asked."""
    one, two = bystanders(rng, world, text)
    thing, place, is_there = belief.thing, belief.place, belief.is_there
    kind, is_negated = rng.randrange(3), rng.random() < 0.3
    if kind == 0:
        if is_there is None:
            return f"Nobody could tell whether the {thing} was in the {place}."
        return f"So {_clause(thing, place, not is_there)}."
    if is_there is None:
        answer = "maybe"
    else:
        answer = "yes" if is_there != is_negated else "no"
    if kind == 1:
        clause = capital(_clause(thing, place, is_negated))
        return f'"{clause}?" asked {one.name}. "{capital(answer)}," said {two.name}.'
    clause = _clause(thing, place, is_negated)
    return f"{one.name} asked whether {clause}, and the answer was {answer}."


def _both(rng: random.Random, known: Belief, unknown: Belief) -> str:
    """The two sentences in either order."""
    return " ".join([known.text, unknown.text][:: rng.choice((1, -1))])


def _clause(thing: str, place: str, is_negated: bool) -> str:
    """Where a thing was or was not."""
    return f"the {thing} was {'not ' if is_negated else ''}in the {place}"
