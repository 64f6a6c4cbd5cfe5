"""Who is older, who gave what to whom, who came first: what follows from it (the form of RTE)."""

import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import Person, World, bystanders, draw, sentence

YES_NO = ("yes", "no")


class Relations:
    """A row of people of whom each is more than the next, or a deal between two of three.

    Args:
      rng: Where they are drawn from.
      world: Who and what there is.
    """

    def __init__(self, rng: random.Random, world: World):
        self.people: list[Person] = rng.sample(world.people, 3)
        self.is_deal = rng.random() < 0.35
        self.things = rng.sample(world.things, 2)
        self._words: Any = rng.choice(
            words.load("relations")["deals" if self.is_deal else "orders"]
        )
        first, second, third = self.people
        pairs = [(first, second), (second, third)]
        told = [self._tell(rng, *pair, self.things[i]) for i, pair in enumerate(pairs)]
        if rng.random() < 0.5:
            told.reverse()
        self.text = " ".join(sentence(part) for part in told)

    def _tell(self, rng: random.Random, one: Person, two: Person, thing: str) -> str:
        """What holds of two people, said from the side of either."""
        from_first = rng.random() < 0.5
        if self.is_deal:
            give, to, get, from_ = self._words
            if from_first:
                return f"{one.name} {give} the {thing} {to} {two.name}"
            return f"{two.name} {get} the {thing} {from_} {one.name}"
        more, less = self._words
        return f"{one.name} {more} {two.name}" if from_first else f"{two.name} {less} {one.name}"

    def claim(self, rng: random.Random, is_true: bool) -> str:
        """Returns a statement that follows from what is told, or that cannot be with it.

        Args:
          rng: Where it is drawn from.
          is_true: Whether it follows.
        """
        first, second, third = self.people
        i = rng.randrange(2)
        pairs = [(first, second), (second, third), (first, third), (first, third)]
        pair = pairs[i if self.is_deal else rng.randrange(4)]
        one, two = pair if is_true else pair[::-1]
        return self._tell(rng, one, two, self.things[i])


def relations(rng: random.Random, world: World, owner: str) -> Relations:
    """Returns relations whose text belongs to an owner.

    Args:
      rng: Where they are drawn from.
      world: Who and what there is.
      owner: To whom they belong.
    """
    return draw(rng, owner, lambda rng: Relations(rng, world), key=lambda made: made.text)


def rte(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of RTE: relations, and a hypothesis that follows from them or not.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the relations belong.
      label: Index in `YES_NO`.
    """
    told = relations(rng, world, owner)
    return [{"premise": told.text, "hypothesis": told.claim(rng, label == 0), "label": label}]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns relations and what people say of them.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the text belongs.
    """
    told = relations(rng, world, owner)
    remarks = [_remark(rng, world, told) for _ in range(rng.choice((1, 2, 2)))]
    return " ".join([told.text, *remarks])


def _remark(rng: random.Random, world: World, told: Relations) -> str:
    """What somebody concludes, or answers when told."""
    one, two = bystanders(rng, world, told.text)
    is_true = rng.random() < 0.5
    kind = rng.randrange(3)
    if kind == 0:
        return f"So {told.claim(rng, True)}."
    claim = told.claim(rng, is_true)
    if kind == 1:
        answer = "Yes" if is_true else "No"
        return f'"So {claim}?" asked {one.name}. "{answer}," said {two.name}.'
    answer = "yes" if is_true else "no"
    return f"{one.name} asked whether {claim}, and the answer was {answer}."
