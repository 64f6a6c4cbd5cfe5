"""Who went where with what: stories of a few events, and what is so in the end (the forms of BoolQ and MultiRC)."""

import dataclasses
import random
import re
from collections.abc import Sequence
from typing import Any

from prompt_tuning.data.synthetic.world import Person, World, bystanders, capital, draw

_TIMES = ("", "", "", "Then ", "Later ", "After that ")


@dataclasses.dataclass
class Story:
    """A story and the state it ends in.

    Attributes:
      sentences: What is told.
      place_of: Name of a person, or a thing that nobody has -> place.
      holder_of: Thing -> name of the person who has it.
      located: Names of people of whom the sentences tell where they are.
    """

    sentences: list[str] = dataclasses.field(default_factory=list)
    place_of: dict[str, str] = dataclasses.field(default_factory=dict)
    holder_of: dict[str, str] = dataclasses.field(default_factory=dict)
    located: set[str] = dataclasses.field(default_factory=set)

    @property
    def text(self) -> str:
        """The story."""
        return " ".join(self.sentences)

    def where(self, who: str) -> str:
        """Returns the place of a person or a thing."""
        return self.place_of[self.holder_of.get(who, who)]


def tell(rng: random.Random, world: World, num_events: int) -> Story:
    """Returns a story about two people and two things; everything stays consistent.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      num_events: Sentences after those that say where everything is.
    """
    story = Story()
    people, things = rng.sample(world.people, 2), rng.sample(world.things, 2)
    places = rng.sample(world.places, 3)
    for thing in things:
        story.place_of[thing] = rng.choice(places)
        story.sentences.append(f"The {thing} was in the {story.place_of[thing]}.")
    for person in people:
        story.place_of[person.name] = story.where(rng.choice(things))
    if rng.random() < 0.5:
        story.sentences.reverse()
    last: Person | None = None
    for _ in range(num_events):
        last = _add_event(rng, story, people, places, last)
    return story


def _add_event(
    rng: random.Random,
    story: Story,
    people: Sequence[Person],
    places: Sequence[str],
    last: Person | None,
) -> Person:
    """Adds one event to a story; returns who did it."""
    person = last if last and rng.random() < 0.6 else rng.choice(list(people))
    other = people[0] if person is people[1] else people[1]
    here = story.place_of[person.name]
    held = [thing for thing, who in story.holder_of.items() if who == person.name]
    lying = [thing for thing, place in story.place_of.items() if place == here and " " in thing]
    does: list[str] = ["go", "go"]
    does += ["take"] * 4 * bool(lying) + ["leave"] * bool(held)
    does += ["give"] * 2 * (bool(held) and story.place_of[other.name] == here)
    time = rng.choice(_TIMES) if last else ""
    who = person.he if person is last else person.name
    who = who if time else who[0].upper() + who[1:]
    kind = rng.choice(does)
    if kind == "go":
        target = rng.choice([place for place in places if place != here])
        if rng.random() < 0.15:
            event = f"{who} did not go to the {target}"
        else:
            story.place_of[person.name] = target
            story.located.add(person.name)
            event = f"{who} went to the {target}"
    elif kind == "take":
        thing = rng.choice(lying)
        if rng.random() < 0.15:
            event = f"{who} did not take the {thing}"
        else:
            del story.place_of[thing]
            story.holder_of[thing] = person.name
            story.located.add(person.name)
            event = f"{who} took the {thing}"
    elif kind == "leave":
        thing = rng.choice(held)
        del story.holder_of[thing]
        story.place_of[thing] = here
        event = f"{who} left the {thing} there"
    else:
        thing = rng.choice(held)
        story.holder_of[thing] = other.name
        story.located.add(other.name)
        event = f"{who} gave the {thing} to {other.name}"
    story.sentences.append(f"{time}{event}.")
    return person


@dataclasses.dataclass(frozen=True)
class Fact:
    """Something that one may ask about a story: where somebody or something is, or who has a thing.

    Attributes:
      subject: "Ann" or "the red cup".
      is_place: Whether it is about a place; else about who has the thing.
      right: The answer, "in the mill" or "Ann".
      wrong: An answer of the same kind that the story names as well, so that no single word tells which is right.
    """

    subject: str
    is_place: bool
    right: str
    wrong: str

    def _answer(self, is_true: bool) -> str:
        return self.right if is_true else self.wrong

    def claim(self, is_true: bool, is_past: bool = False) -> str:
        """Returns a statement that is so, or is not so, at the end of the story; as of a time gone by or not."""
        answer = self._answer(is_true)
        if self.is_place:
            return f"{self.subject} {'was' if is_past else 'is'} {answer}"
        return f"{answer} {'had' if is_past else 'has'} {self.subject}"

    def yes_or_no(self, is_true: bool) -> str:
        """Returns the statement as a question, in small letters."""
        answer = self._answer(is_true)
        if self.is_place:
            return f"is {self.subject} {answer}?"
        return f"does {answer} have {self.subject}?"

    def open_question(self) -> str:
        """Returns the question for the answer."""
        return f"Where is {self.subject}?" if self.is_place else f"Who has {self.subject}?"


def fact(rng: random.Random, story: Story) -> Fact:
    """Returns something to ask about a story; mostly about a thing that somebody carries or carried.

    Args:
      rng: Where it is drawn from.
      story: A story that names at least two places.
    """
    people = [who for who in story.place_of if " " not in who and who in story.text]
    if story.holder_of and len(people) == 2 and rng.random() < 0.3:
        thing = rng.choice(sorted(story.holder_of))
        holder = story.holder_of[thing]
        return Fact(f"the {thing}", False, holder, next(who for who in people if who != holder))
    things = sorted({*story.holder_of, *(who for who in story.place_of if " " in who)})
    moved = [thing for thing in things if story.text.count(thing) > 1]
    subject = rng.choice(
        moved if moved and rng.random() < 0.7 else [*things, *sorted(story.located)]
    )
    place = story.where(subject)
    other = rng.choice([name for name in _places(story) if name != place])
    named = f"the {subject}" if " " in subject else subject
    return Fact(named, True, f"in the {place}", f"in the {other}")


def _places(story: Story) -> list[str]:
    """Every place that a story names, in order."""
    return list(dict.fromkeys(re.findall(r"(?:in|to) the (\w+)\.", story.text)))


def boolq(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns an example of the form of BoolQ: a story, and a question of yes or no.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the story belongs.
      label: 1 where the answer is yes.
    """
    story = _story_of(rng, world, owner)
    asked = fact(rng, story).yes_or_no(bool(label))
    return [{"passage": story.text, "question": asked, "label": label}]


def multirc(rng: random.Random, world: World, owner: str, label: int) -> list[dict[str, Any]]:
    """Returns the answers to one question about a story, a right and a wrong one (the form of MultiRC).

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the story belongs.
      label: Of the first answer.
    """
    story = _story_of(rng, world, owner)
    asked = fact(rng, story)
    return [
        {
            "paragraph": story.text,
            "question": asked.open_question(),
            "answer": asked.right if is_right else asked.wrong,
            "label": is_right,
        }
        for is_right in (label, 1 - label)
    ]


def paragraph(rng: random.Random, world: World, owner: str) -> str:
    """Returns a story and what people say of it.

    Args:
      rng: Where it is drawn from.
      world: Who and what there is.
      owner: To whom the text belongs.
    """
    story = _story_of(rng, world, owner)
    numbers = range(rng.choice((1, 2, 2, 3)))
    remarks = [_remark(rng, world, story.text, fact(rng, story)) for _ in numbers]
    return " ".join([story.text, *remarks])


def _story_of(rng: random.Random, world: World, owner: str) -> Story:
    """A story of an owner, with at least two places, so that there is something to mistake."""

    def make(rng: random.Random) -> Story:
        while True:
            story = tell(rng, world, rng.choice((2, 3, 3, 4)))
            if len(_places(story)) > 1:
                return story

    return draw(rng, owner, make, key=lambda story: story.text)


def _remark(rng: random.Random, world: World, text: str, known: Fact) -> str:
    """Something that follows, or that somebody says and is right or wrong about."""
    is_true = rng.random() < 0.5
    one, two = bystanders(rng, world, text)
    kind = rng.randrange(5)
    if kind == 0:
        verdict = "True" if is_true else "False"
        return f'"{capital(known.claim(is_true))}," said {one.name}. {verdict}, thought {two.name}.'
    if kind == 1:
        verdict = "Yes" if is_true else "No"
        return (
            f'"{capital(known.yes_or_no(is_true))}" asked {one.name}. "{verdict}," said {two.name}.'
        )
    if kind == 2:
        verdict = "right" if is_true else "wrong"
        return f"{one.name} thought that {known.claim(is_true, is_past=True)}. {capital(one.he)} was {verdict}."
    if kind == 3:
        answer = capital(known.right)
        return f'"{known.open_question()}" asked {one.name}. "{answer}," said {two.name}.'
    return f"So {known.claim(True, is_past=True)}."
