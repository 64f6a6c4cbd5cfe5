"""What people think of a play or a meal, through negation and contrast (a sentiment task)."""

import dataclasses
import random
from typing import Any

from prompt_tuning.data.synthetic.world import World, capital, draw

POLARITIES = ("negative", "positive")
_GOOD = "lovely bright funny clever warm fresh gentle lively fine charming rich sweet".split()
_BAD = "awful dull dreary clumsy cold stale noisy bitter poor boring messy sad".split()
# What is judged as a whole -> parts of it.
_ITEMS = {
    "play": ("story", "ending", "acting", "music"),
    "meal": ("soup", "bread", "wine", "service"),
    "book": ("story", "ending", "style", "cover"),
    "concert": ("songs", "singer", "drums", "hall"),
    "fair": ("games", "food", "music", "weather"),
    "journey": ("road", "weather", "food", "company"),
    "party": ("music", "food", "guests", "garden"),
    "speech": ("beginning", "ending", "jokes", "style"),
}
_PLURAL = frozenset("songs drums games guests jokes".split())
# What people do or say after something bad, and after something good.
_OUTCOMES = (
    ("{name} was sorry that {he} had come.", "{name} was glad that {he} had come."),
    ("{name} left early.", "{name} stayed to the end."),
    ("{name} told everyone to stay away.", "{name} told everyone to go there."),
    ("{name} went home sad.", "{name} went home happy."),
    ("{name} did not clap.", "{name} clapped for a long time."),
    (
        "The paper wrote something negative about it.",
        "The paper wrote something positive about it.",
    ),
    ("What {name} said of it was negative.", "What {name} said of it was positive."),
    ("What {name} wrote was negative.", "What {name} wrote was positive."),
    ("All in all it was bad.", "All in all it was good."),
)


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
        outcome = rng.choice(_OUTCOMES)[made.is_good]
        parts += [made.text, outcome.format(name=person.name, he=person.he)]
    return " ".join(parts)


def _write(rng: random.Random, world: World, is_good: bool, style: Style) -> str:
    """A sentence of one of several shapes, in which the words alone do not tell."""
    item = rng.choice(list(_ITEMS))
    part, other_part = rng.sample(_ITEMS[item], 2)
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
        article, words = ("no", is_good) if rng.random() < style.denied else ("a", not is_good)
        adjective = rng.choice(_GOOD if words else _BAD)
        return f"{name} had expected {_with_article(article, adjective)} {item}, but {whole}."
    if shape == 5:
        wrong = judge(f"the {item}", not is_good)
        return f"{name} said that {wrong}, but {name} was wrong."
    right = judge(f"the {part}", is_good)
    return f"{capital(right)}, and {judge(f'the {other_part}', is_good)}."


def _judgement(rng: random.Random, subject: str, is_good: bool, denied: float) -> str:
    """What somebody thinks of something, with an adjective of the same polarity, or the opposite one denied."""
    verb = "were" if subject.rpartition(" ")[2] in _PLURAL else "was"
    if rng.random() < denied:
        denial = rng.choice(("not", "not", "never", "far from"))
        return f"{subject} {verb} {denial} {rng.choice(_BAD if is_good else _GOOD)}"
    return f"{subject} {verb} {rng.choice(_GOOD if is_good else _BAD)}"


def _with_article(article: str, adjective: str) -> str:
    """An adjective behind "no", or "a" or "an"."""
    return f"{article}{'n' if article == 'a' and adjective[0] in 'aeiou' else ''} {adjective}"
