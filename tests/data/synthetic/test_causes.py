"""Causes and effects are drawn for every owner, also where a village has nobody that the owner may write about."""

import random

import pytest

from prompt_tuning.data.synthetic import causes, lexicon
from prompt_tuning.data.synthetic.world import Person, World, owner_of


def names_without(owner):
    """First names that make no law of this owner."""
    names = (*lexicon.WOMEN, *lexicon.MEN)
    return [n for n in names if all(owner_of(f"{n} {law[0]}") != owner for law in causes._LAWS)]


# Drawing from such a village never ended: fail, rather than hang.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("label", [0, 1])
def test_a_village_without_a_law_of_its_owner_borrows_people(label):
    names = names_without("heldout")[:6]
    assert len(names) == 6
    people = tuple(
        Person(name, job, name in lexicon.WOMEN)
        for name, job in zip(names, lexicon.JOBS, strict=False)
    )
    village = World(people, tuple(lexicon.PLACES[:5]), tuple(lexicon.THINGS[:5]))
    rng = random.Random(0)
    borrowed = {*lexicon.WOMEN, *lexicon.MEN} - set(names_without("heldout"))
    met = set()
    for _ in range(20):
        (example,) = causes.copa(rng, village, "heldout", label)
        words = " ".join(example[k] for k in ("premise", "first", "second"))
        assert example["label"] == label and not any(n in words for n in names_without("heldout"))
        met |= {name for name in borrowed if name in words}
        assert causes.paragraph(rng, village, "heldout")
    assert len(met) > 3
