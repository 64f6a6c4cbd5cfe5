"""Causes and effects are drawn for every owner, also where a village has nobody that the owner may write about."""

import random

import pytest

from prompt_tuning.data.synthetic import causes, words
from prompt_tuning.data.synthetic.world import Person, World, owner_of

LEXICON = words.load("lexicon")
NAMES = (*LEXICON["women"], *LEXICON["men"])


def names_without(owner):
    """First names that make no law of this owner."""
    laws = words.load("causes")
    return [n for n in NAMES if all(owner_of(f"{n} {law[0]}") != owner for law in laws)]


# Drawing from such a village never ended: fail, rather than hang.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("label", [0, 1])
def test_a_village_without_a_law_of_its_owner_borrows_people(label):
    names = names_without("heldout")[:6]
    assert len(names) == 6
    people = tuple(
        Person(name, job, name in LEXICON["women"])
        for name, job in zip(names, LEXICON["jobs"], strict=False)
    )
    village = World(people, tuple(LEXICON["places"][:5]), tuple(LEXICON["things"][:5]))
    rng = random.Random(0)
    borrowed = set(NAMES) - set(names_without("heldout"))
    met = set()
    for _ in range(20):
        (example,) = causes.copa(rng, village, "heldout", label)
        text = " ".join(example[k] for k in ("premise", "first", "second"))
        assert example["label"] == label and not any(n in text for n in names_without("heldout"))
        met |= {name for name in borrowed if name in text}
        assert causes.paragraph(rng, village, "heldout")
    assert len(met) > 3
