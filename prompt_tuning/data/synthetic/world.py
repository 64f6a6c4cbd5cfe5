"""Worlds: who and what there is, drawn by seed, and to whom a world and a text belong."""

import dataclasses
import random
import zlib
from collections.abc import Callable
from typing import TypeVar

from prompt_tuning.data.synthetic import words

# Who may use a world or a text, in twentieths of all there are; what belongs to one is never used by another:
# the text to pre-train on, the text to measure its loss on, and the splits of the tasks.
_SHARES = {"pretraining": 10, "heldout": 1, "train": 5, "validation": 2, "test": 2}
OWNERS = tuple(_SHARES)
_OWNER_OF = [owner for owner, share in _SHARES.items() for _ in range(share)]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Person:
    """Somebody.

    Attributes:
      name: First name.
      job: What they are, for example "baker".
      is_woman: Decides the pronoun.
    """

    name: str
    job: str
    is_woman: bool

    @property
    def he(self) -> str:
        """The pronoun of a subject."""
        return "she" if self.is_woman else "he"


@dataclasses.dataclass(frozen=True)
class World:
    """What there is in one village.

    Attributes:
      people: Six people; three women and three men, each with a name and a job of their own.
      places: Names of five places.
      things: Five things, "red cup".
    """

    people: tuple[Person, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]


def make_world(rng: random.Random, owner: str) -> World:
    """Returns a world of one owner; no other owner ever gets the same.

    Args:
      rng: Where it is drawn from.
      owner: one of `OWNERS`.
    """
    return draw(rng, owner, _any_world, key=repr)


def draw(
    rng: random.Random,
    owner: str,
    make: Callable[[random.Random], T],
    *,
    key: Callable[[T], str],
) -> T:
    """Returns something that belongs to an owner: the first that `make` draws whose text does.

    Args:
      rng: Where it is drawn from.
      owner: one of `OWNERS`.
      make: Draws one.
      key: Its text, which alone decides to whom it belongs.
    """
    while True:
        made = make(rng)
        if owner_of(key(made)) == owner:
            return made


def owner_of(text: str) -> str:
    """Returns to whom a text belongs, a function of the text alone."""
    return _OWNER_OF[zlib.crc32(text.encode("utf-8")) % len(_OWNER_OF)]


def bystanders(rng: random.Random, world: World, text: str) -> list[Person]:
    """Returns two people whom a text does not name, to talk about it.

    Args:
      rng: Where they are drawn from.
      world: Who there is.
      text: Names four of the six people at most.
    """
    return rng.sample([person for person in world.people if person.name not in text], 2)


def capital(text: str) -> str:
    """Returns a text with a capital first letter."""
    return f"{text[0].upper()}{text[1:]}"


def sentence(text: str) -> str:
    """Returns a clause as a sentence: a capital first letter, and a period."""
    return f"{capital(text)}."


def _any_world(rng: random.Random) -> World:
    """Draws a world of any owner."""
    lexicon = words.load("lexicon")
    jobs = rng.sample(lexicon["jobs"], 6)
    names = [*rng.sample(lexicon["women"], 3), *rng.sample(lexicon["men"], 3)]
    people = [Person(name, jobs[i], is_woman=i < 3) for i, name in enumerate(names)]
    rng.shuffle(people)
    nouns = rng.sample(lexicon["things"], 5)
    return World(
        tuple(people),
        tuple(rng.sample(lexicon["places"], 5)),
        tuple(f"{rng.choice(lexicon['colours'])} {noun}" for noun in nouns),
    )
