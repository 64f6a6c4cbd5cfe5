"""Words of two senses, and what is said with each (the form of WiC)."""

import random
from typing import Any

from prompt_tuning.data.synthetic.world import World, bystanders, owner_of, sentence

# Word -> two senses: (what it is, clauses with the word, between bars); {x} is a person.
_SENSES = {
    "bank": (
        (
            "the side of the river",
            "{x} fished from the bank | {x} sat on the bank by the water | "
            "grass grew on the bank where {x} lay | {x} rowed to the other bank",
        ),
        (
            "the house with the money",
            "{x} put money in the bank | the bank lent {x} money | "
            "{x} had gold in the bank | {x} worked as a clerk in the bank",
        ),
    ),
    "bat": (
        (
            "the animal",
            "{x} saw a bat fly at night | the bat slept over the head of {x} | "
            "a bat flew past {x} in the dark | {x} heard the wings of a bat",
        ),
        (
            "the piece of wood",
            "{x} hit the ball with the bat | {x} made a bat of wood | "
            "{x} held the bat in both hands | {x} broke the bat in the game",
        ),
    ),
    "spring": (
        (
            "the time of the year",
            "{x} came back in spring | after the winter {x} saw the spring | "
            "in spring {x} planted roses | {x} was born in spring",
        ),
        (
            "the water",
            "{x} drank from the spring | {x} found a spring in the rocks | "
            "clear water ran from the spring of {x} | {x} filled a bucket at the spring",
        ),
    ),
    "ring": (
        (
            "the jewel",
            "{x} wore a gold ring | {x} lost the ring from a finger | "
            "{x} got a ring at the wedding | the ring of {x} had a stone",
        ),
        (
            "the sound",
            "{x} heard a ring at the door | the ring of the bell woke {x} | "
            "at the first ring {x} ran down | {x} knew the ring of that bell",
        ),
    ),
    "bark": (
        (
            "the skin of a tree",
            "{x} cut a name in the bark | the bark of the oak was rough to {x} | "
            "{x} peeled the bark from the tree | {x} saw a beetle under the bark",
        ),
        (
            "the voice of a dog",
            "{x} heard the bark of a dog | the bark of the dog woke {x} | "
            "with a loud bark the dog ran to {x} | {x} knew the bark of that dog",
        ),
    ),
    "letter": (
        (
            "what comes by post",
            "{x} sent a letter home | {x} got a letter in the post | "
            "{x} burned the letter unread | the letter to {x} was three pages long",
        ),
        (
            "a part of a word",
            "{x} could not read the first letter | the name of {x} ends with this letter | "
            "{x} wrote a capital letter | {x} knew each letter from A to Z",
        ),
    ),
    "light": (
        (
            "not heavy",
            "{x} had a light bag | the box was light, so {x} lifted it | "
            "{x} felt as light as a feather | {x} took the light load",
        ),
        (
            "not dark",
            "{x} painted the wall in a light blue | it was light when {x} got up | "
            "{x} wore a light green dress | the room of {x} was light and high",
        ),
    ),
    "match": (
        (
            "the little fire",
            "{x} lit the stove with a match | {x} struck a match in the dark | "
            "the match burned the finger of {x} | {x} had one match left for the lamp",
        ),
        (
            "the game",
            "{x} won the match | {x} lost the match by one goal | "
            "the match ended before {x} came | {x} played in the match on Sunday",
        ),
    ),
    "watch": (
        (
            "the little clock",
            "{x} wore a gold watch | the watch of {x} had stopped | "
            "{x} looked at the watch for the time | {x} wound up the watch",
        ),
        (
            "the guard",
            "{x} kept watch all night | {x} was on watch at the gate | "
            "the watch called out to {x} | {x} had the first watch on the ship",
        ),
    ),
    "wave": (
        (
            "the water",
            "a wave wet the feet of {x} | the boat of {x} rode over the wave | "
            "{x} saw a high wave on the sea | {x} swam under the wave",
        ),
        (
            "the sign",
            "{x} gave a wave of the hand | with a wave {x} said goodbye | "
            "{x} answered with a friendly wave | {x} saw her wave from the window",
        ),
    ),
    "well": (
        (
            "the hole with water",
            "{x} fell into the well | {x} let the bucket down the well | "
            "the well of {x} was deep | {x} dug a well",
        ),
        (
            "not badly",
            "{x} sang well | {x} slept well | {x} cooks well | the work of {x} went well",
        ),
    ),
    "note": (
        (
            "the paper",
            "{x} left a note on the table | {x} read the note and tore it up | "
            "{x} wrote a short note | the note of {x} said goodbye",
        ),
        (
            "the tone",
            "{x} sang a high note | {x} played a wrong note | "
            "the last note of {x} was low | {x} held the note for long",
        ),
    ),
    "nail": (
        (
            "the piece of iron",
            "{x} hit the nail with a hammer | {x} hung the picture on a nail | "
            "a nail tore the coat of {x} | {x} pulled the nail out of the wall",
        ),
        (
            "the end of a finger",
            "{x} bit a nail in fear | {x} broke a nail of the left hand | "
            "{x} cut the nail of a finger | {x} painted each nail red",
        ),
    ),
    "trunk": (
        (
            "the box",
            "{x} packed the trunk | {x} put the trunk on the coach | "
            "{x} had clothes in the trunk | {x} lost the key of the trunk",
        ),
        (
            "the part of a tree",
            "{x} leaned on the trunk of the oak | {x} sawed through the trunk | "
            "moss grew on the trunk where {x} sat | {x} climbed up the trunk",
        ),
    ),
}
NO_YES = ("False", "True")


def _uses(
    rng: random.Random, world: World, owner: str, is_same: bool
) -> tuple[str, tuple[int, int], list[str]]:
    """A word, two of its senses, and a sentence of an owner with each."""
    while True:
        word, sense = rng.choice(list(_SENSES)), rng.randrange(2)
        senses = (sense, sense if is_same else 1 - sense)
        # A world may have no sentence of this owner with some sense of a word.
        owned = [
            [
                text
                for clause in _SENSES[word][i][1].split(" | ")
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
    meant = [_SENSES[word][i][0] for i in senses]
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
