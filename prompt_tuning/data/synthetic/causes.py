"""What leads to what: laws of the world that its stories show again and again (the form of COPA)."""

import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import Person, World, capital, draw, make_world, owner_of

FIRST_SECOND = ("first", "second")


def _law(
    rng: random.Random, owner: str, world: World, *, names_someone: bool = False
) -> tuple[Person, int, int]:
    """Who does what: a person, the number of a law, and 0 for its first half or 1 for its second."""

    def key(made: tuple[Person, int, int]) -> str:
        # Both halves of a law belong to one owner: else what is right for one would be what is wrong for another.
        return f"{made[0].name} {table[made[1]][0]}"

    def make(rng: random.Random) -> tuple[Person, int, int]:
        return rng.choice(people), rng.choice(laws), rng.randrange(2)

    table = words.load("causes")
    laws = [i for i, law in enumerate(table) if "{x}" in law[0] or not names_someone]
    people = world.people
    # A small owner may have no law with any of a world's six people.
    while all(owner_of(key((p, law, 0))) != owner for p in people for law in laws):
        people = make_world(rng, owner).people
    return draw(rng, owner, make, key=key)


def _clause(person: Person, law: int, half: int, part: int) -> str:
    """A cause (part 0) or effect (part 1)."""
    return words.load("causes")[law][2 * half + part].format(x=person.name)


def copa(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of COPA: which of two is the cause or effect of something.

    The wrong one belongs to the opposite of the premise, or to another law.

    Args:
      rng: Where it is drawn from.
      world: Who there is.
      owner: To whom person and law together belong.
      label: Index in `FIRST_SECOND`.
    """
    # What names nobody would be the same example for every owner.
    person, law, half = _law(rng, owner, world, names_someone=True)
    part = rng.randrange(2)
    other_law, other_half = law, 1 - half
    if rng.random() < 0.5:
        other_law = rng.choice([i for i in range(len(words.load("causes"))) if i != law])
        other_half = rng.randrange(2)
    right = _clause(person, law, half, part)
    wrong = _clause(person, other_law, other_half, part)
    choices = (wrong, right) if label else (right, wrong)
    return [
        {
            "premise": f"{capital(_clause(person, law, half, 1 - part))}.",
            "question": ("cause", "effect")[part],
            "first": f"{capital(choices[0])}.",
            "second": f"{capital(choices[1])}.",
            "label": label,
        }
    ]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns causes and effects.

    Args:
      rng: Where they are drawn from.
      world: Who there is.
      owner: To whom the text belongs.
    """
    return " ".join(_told(rng, world, owner) for _ in range(rng.choice((2, 3))))


def _told(rng: random.Random, world: World, owner: str) -> str:
    """A cause with its effect, in one of several ways."""
    person, law, half = _law(rng, owner, world)
    cause, effect = (_clause(person, law, half, part) for part in (0, 1))
    kind = rng.randrange(5)
    if kind == 0:
        return f"{capital(cause)}, so {effect}."
    if kind == 1:
        return f"{capital(effect)}, because {cause}."
    if kind == 2:
        return f"{capital(cause)}. That was the cause. The effect was that {effect}."
    part = rng.randrange(2)
    other = _clause(person, law, 1 - half, part)
    right = rng.randrange(2)
    told = [cause, effect][part]
    ways = [told, other] if right == 0 else [other, told]
    said = f"Some said that {ways[0]}, some that {ways[1]}."
    known = capital([cause, effect][1 - part])
    which = FIRST_SECOND[right]
    if kind == 3:
        return f"{known}. {said} The {which} was true."
    return f"{said} {known}, so the {which} was true."
