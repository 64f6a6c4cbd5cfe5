"""The synthetic examples: right labels by readers of their own, splits that share nothing, the same everywhere."""

import collections
import hashlib
import json
import random

import pytest

from prompt_tuning.data.synthetic import benchmark, corpus, words, world
from prompt_tuning.errors import DataError
from tests.data.synthetic import readers

# The text that an example is about, which no other split may hold.
TEXTS = {
    "boolq": ("passage",),
    "cb": ("premise",),
    "multirc": ("paragraph",),
    "rte": ("premise",),
    "sentiment": ("sentence",),
    "wic": ("sentence1", "sentence2"),
    "wsc": ("text",),
}
# Published checkpoints and figures belong to this text: a change of one letter is a change of all of them.
ROWS_DIGEST = "a1d451e10fe452391c15230f71351d03e209fcfb682cf5fb2a2fcf889502e10a"
CORPUS_DIGEST = "3e1b4e9e4ca53f550efe50d2bfb01c90a3bf3dc5d8ba00c085c3990d280d1588"


@pytest.mark.parametrize("name", sorted(benchmark.FORMS))
def test_every_split_has_its_number_of_different_examples_of_every_class(name):
    for split, number in benchmark.NUM_EXAMPLES.items():
        rows = benchmark.rows(name, split)
        assert len(rows) == number
        keys = {tuple(v for k, v in row.items() if k not in ("idx", "label")) for row in rows}
        assert len(keys) == number
        labels = collections.Counter(row["label"] for row in rows)
        classes = len(benchmark.FORMS[name].classes)
        assert set(labels) == set(range(classes))
        assert max(labels.values()) < 1.05 * number / classes


@pytest.fixture(scope="module")
def written():
    return "\n".join(corpus.documents(2000, split="train"))


def test_the_text_is_that_on_which_the_ladder_was_trained(written):
    rows = [benchmark.rows(n, s) for n in sorted(benchmark.FORMS) for s in benchmark.NUM_EXAMPLES]
    for text, digest in ((json.dumps(rows), ROWS_DIGEST), (written, CORPUS_DIGEST)):
        assert hashlib.sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_splits_share_no_text_and_neither_with_pre_training(name, written):
    owned = {
        split: {row[field] for row in benchmark.rows(name, split) for field in TEXTS[name]}
        for split in benchmark.NUM_EXAMPLES
    }
    assert not owned["train"] & owned["validation"]
    assert not owned["train"] & owned["test"]
    assert not owned["validation"] & owned["test"]
    texts = sorted(text for split in owned.values() for text in split)
    assert [text for text in texts if text in written] == []


def test_no_example_of_copa_is_in_two_splits():
    # Its premises are laws of the text, which may name nobody; whole examples are of one split.
    fields = ("premise", "question", "first", "second")
    train, dev, test = (
        {tuple(row[field] for field in fields) for row in benchmark.rows("copa", split)}
        for split in ("train", "validation", "test")
    )
    assert not train & dev and not train & test and not dev & test and len(dev) > 300


def test_the_owner_of_a_world_is_known_from_the_world():
    rng = random.Random(1)
    for owner in world.OWNERS:
        made = world.make_world(rng, owner)
        assert world.owner_of(repr(made)) == owner
        assert len({person.name for person in made.people}) == len(made.people) == 6


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_about_stories_have_the_right_answer(split):
    for row in benchmark.rows("boolq", split)[:1000]:
        assert readers.answer_story(row["passage"], row["question"]) == bool(row["label"]), row
    for row in benchmark.rows("multirc", split)[:1000]:
        place, holder = readers.read_story(row["paragraph"])
        asked = row["question"].rstrip("?").removeprefix("Where is ").removeprefix("Who has ")
        asked = asked.removeprefix("the ")
        if row["question"].startswith("Who"):
            right = holder[asked]
        else:
            right = f"in the {place[holder.get(asked, asked)]}"
        assert (row["answer"] == right) == bool(row["label"]), row


def test_hypotheses_follow_as_labelled():
    rows = benchmark.rows("rte", "train")
    for row in rows:
        is_entailed = benchmark.FORMS["rte"].classes[row["label"]] == "yes"
        assert readers.follows(row["premise"], row["hypothesis"]) == is_entailed, row
    two_steps = [row for row in rows if row["hypothesis"] not in row["premise"]]
    assert len(two_steps) > len(rows) / 3


def test_reviews_praise_as_labelled():
    for row in benchmark.rows("sentiment", "train"):
        assert readers.is_praise(row["sentence"]) == bool(row["label"]), row


def test_beliefs_of_which_one_can_tell_are_labelled_by_what_is_so():
    rows = benchmark.rows("cb", "train")
    told = {"knew that", "saw that", "dreamed that", "lied that", "hoped that", "wondered whether"}
    seen = collections.Counter()
    for row in rows:
        clause = row["hypothesis"].replace("not ", "")
        sentence = next(
            s
            for s in row["premise"].split(". ")
            if clause.split(" was ")[0] in s and clause.rsplit(" ", 1)[-1].rstrip(".") in s
        )
        verb = next((verb for verb in told if f" {verb} " in sentence), None)
        if verb is None or "did not know" in sentence or "never dreamed" in sentence:
            continue
        if verb in ("hoped that", "wondered whether"):
            expected = "maybe"
        else:
            is_so = verb in ("knew that", "saw that")
            agrees = ("not in" in sentence) == ("not in" in row["hypothesis"])
            expected = "yes" if is_so == agrees else "no"
        assert benchmark.FORMS["cb"].classes[row["label"]] == expected, row
        seen[expected] += 1
    assert min(seen.values()) > 100 and len(seen) == 3


def test_a_pronoun_means_whom_the_reason_is_about():
    for row in benchmark.rows("wsc", "train")[:500]:
        first, verb, second = row["text"].split()[:3]
        reason = " ".join(row["text"].rstrip(".").split()[5:])
        of_first, of_second = words.load("pronouns")[verb]
        meant = first if reason in of_first else second
        assert reason in of_first + of_second
        assert (row["span1_text"] == meant) == bool(row["label"])
        tokens = row["text"].split(" ")
        assert tokens[row["span2_index"]] == row["span2_text"] in ("he", "she")
        assert tokens[row["span1_index"]] == row["span1_text"]


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="Unknown task .*boolq"):
        benchmark.rows("boolk", "train")
    with pytest.raises(DataError, match="Unknown split"):
        benchmark.rows("boolq", "dev")
