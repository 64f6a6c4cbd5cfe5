"""What people think of a play or a meal, through negation and contrast (a sentiment task)."""

import dataclasses
import random
from typing import Any

from prompt_tuning.data.synthetic import words
from prompt_tuning.data.synthetic.world import World, capital, draw

POLARITIES = ("negative", "positive")


@dataclasses.dataclass(frozen=True)
class Style:
    """How reviews are put.

    Attributes:
      denied: Share of adjectives that are denied; at a half, no word tells which way a review goes.
      plain: Share of reviews without contrast or error.
    """

    denied: float
    plain: float


_OF_TASKS = Style(denied=0.5, plain=0.3)
# People rather say what something was than what it was not: words mean what they mostly come with.
_OF_TEXT = Style(denied=0.2, plain=0.5)


@dataclasses.dataclass(frozen=True)
class Review:
    """A sentence of praise or blame.

    Attributes:
      text: The sentence.
      is_good: Whether what is judged was good on the whole.
    """

    text: str
    is_good: bool


def review(
    rng: random.Random, world: World, owner: str, is_good: bool, style: Style = _OF_TASKS
) -> Review:
    """Returns a review whose sentence belongs to an owner.

    Args:
      rng: Where it is drawn from.
      world: Who there is.
      owner: To whom it belongs.
      is_good: Whether it is praise.
      style: How it is put.
    """

    def make(rng: random.Random) -> Review:
        return Review(_write(rng, world, is_good, style), is_good)

    return draw(rng, owner, make, key=lambda made: made.text)


def sentiment(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of a sentiment task: each word is as frequent under either label.

    Args:
      rng: Where it is drawn from.
      world: Who there is.
      owner: To whom the sentence belongs.
      label: Index in `POLARITIES`.
    """
    return [{"sentence": review(rng, world, owner, bool(label)).text, "label": label}]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns reviews and what came of them.

    Args:
      rng: Where it is drawn from.
      world: Who there is.
      owner: To whom the text belongs.
    """
    parts = []
    for _ in range(2):
        made = review(rng, world, owner, rng.random() < 0.5, _OF_TEXT)
        person = rng.choice(world.people)
        outcome = rng.choice(words.load("reviews")["outcomes"])[made.is_good]
        parts += [made.text, outcome.format(name=person.name, he=person.he)]
    return " ".join(parts)


def _write(rng: random.Random, world: World, is_good: bool, style: Style) -> str:
    """A sentence of one of several shapes, in which the words alone do not tell."""
    items = words.load("reviews")["items"]
    item = rng.choice(list(items))
    part, other_part = rng.sample(items[item], 2)
    name = rng.choice(world.people).name

    def judge(subject: str, is_good: bool) -> str:
        return _judgement(rng, subject, is_good, style.denied)

    whole = judge(f"the {item}", is_good)
    shape = rng.choice((0, 6)) if rng.random() < style.plain else rng.randrange(1, 6)
    if shape == 0:
        return f"{name} said that {whole}."
    if shape == 1:
        return f"{capital(judge(f'the {part}', not is_good))}, but {whole}."
    if shape == 2:
        return f"Although {judge(f'the {part}', not is_good)}, {whole}."
    if shape == 3:
        return f"{capital(whole)}, although {judge(f'the {part}', not is_good)}."
    if shape == 4:
        # What was expected is the opposite, by denial as often as elsewhere.
        article, polarity = ("no", is_good) if rng.random() < style.denied else ("a", not is_good)
        adjective = _adjective(rng, polarity)
        return f"{name} had expected {_with_article(article, adjective)} {item}, but {whole}."
    if shape == 5:
        wrong = judge(f"the {item}", not is_good)
        return f"{name} said that {wrong}, but {name} was wrong."
    right = judge(f"the {part}", is_good)
    return f"{capital(right)}, and {judge(f'the {other_part}', is_good)}."


def _judgement(rng: random.Random, subject: str, is_good: bool, denied: float) -> str:
    """What somebody thinks of something, with an adjective of the same polarity, or the opposite one denied."""
    verb = "were" if subject.rpartition(" ")[2] in words.load("reviews")["plural"] else "was"
    if rng.random() < denied:
        denial = rng.choice(("not", "not", "never", "far from"))
        return f"{subject} {verb} {denial} {_adjective(rng, not is_good)}"
    return f"{subject} {verb} {_adjective(rng, is_good)}"


def _adjective(rng: random.Random, is_good: bool) -> str:
    """A word of praise or blame."""
    return rng.choice(words.load("reviews")["good" if is_good else "bad"])


def _with_article(article: str, adjective: str) -> str:
    """An adjective behind "no", or "a" or "an"."""
    return f"{article}{'n' if article == 'a' and adjective[0] in 'aeiou' else ''} {adjective}"
