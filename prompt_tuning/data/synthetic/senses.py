"""Words of two senses, and what is said with each (the form of WiC)."""

import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import World, bystanders, owner_of, sentence


def _uses(
    rng: random.Random, world: World, owner: str, is_same: bool
) -> tuple[str, tuple[int, int], list[str]]:
    """A word, two of its senses, and a sentence of an owner with each."""
    while True:
        word, sense = rng.choice(list(words.load("senses"))), rng.randrange(2)
        senses = (sense, sense if is_same else 1 - sense)
        # A world may have no sentence of this owner with some sense of a word.
        owned = [
            [
                text
                for clause in words.load("senses")[word][i][1]
                for person in world.people
                if owner_of(text := sentence(clause.format(x=person.name))) == owner
            ]
            for i in senses
        ]
        if min(map(len, owned)) > is_same:
            first = rng.choice(owned[0])
            second = rng.choice([text for text in owned[1] if text != first])
            return word, senses, [first, second]


def wic(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of WiC: two sentences with a word, and whether its sense is the same.

    Args:
      rng: Where it is drawn from.
      world: Who there is.
      owner: To whom both sentences belong.
      label: 1 where the sense is the same.
    """
    word, _, (first, second) = _uses(rng, world, owner, bool(label))
    return [{"sentence1": first, "sentence2": second, "word": word, "label": label}]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns two uses of a word, and what was meant.

    Args:
      rng: Where they are drawn from.
      world: Who there is.
      owner: To whom the text belongs.
    """
    return " ".join(_told(rng, world, owner) for _ in range(2))


def _told(rng: random.Random, world: World, owner: str) -> str:
    """Two uses of a word, each explained or both compared."""
    is_same = rng.random() < 0.5
    word, senses, (first, second) = _uses(rng, world, owner, is_same)
    meant = [words.load("senses")[word][i][0] for i in senses]
    kind = rng.randrange(4)
    if kind == 0:
        return f"{first} Here the word {word} is {meant[0]}."
    if kind == 1:
        return f"{first} {second} The one is {meant[0]}, the other {meant[1]}."
    if kind == 2:
        told = "It is one word and one sense" if is_same else "It is one word with two senses"
        return f"{first} {second} {told}."
    one, two = bystanders(rng, world, first + second)
    answer = "True" if is_same else "False"
    return (
        f'{first} {second} "The sense is the same," said {one.name}. {answer}, thought {two.name}.'
    )
