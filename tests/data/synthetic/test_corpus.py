"""The text to pre-train on: the same for a seed, without tasks, with prose where it is given."""

import itertools

from prompt_tuning.data.synthetic import benchmark, corpus
from prompt_tuning.tasks import synthetic
from tests.helpers import ENGLISH


def test_the_seed_alone_decides_and_splits_differ():
    first = list(corpus.documents(200, split="train", seed=3))
    assert first == list(corpus.documents(200, split="train", seed=3))
    assert len(first) == 200
    assert first != list(corpus.documents(200, split="train", seed=4))
    held_out = list(corpus.documents(200, split="validation", seed=3))
    assert not set(first) & set(held_out)


def test_nothing_has_the_form_of_a_task():
    documents = list(corpus.documents(1500, split="train"))
    text = "\n".join(documents)
    names = {field for fields in synthetic.FIELDS.values() for field in fields}
    assert len(names) > 8
    assert [name for name in sorted(names) if f"{name}:" in text.lower()] == []
    assert not any(":" in document or "*" in document for document in documents)
    # What tells a task's answers from the text is the form alone: the words themselves occur.
    words = {word for form in benchmark.FORMS.values() for word in form.classes}
    assert [word for word in sorted(words) if f" {word}" not in text] == []


def test_all_topics_are_there_in_about_their_shares():
    drawn = "\n".join(corpus.documents(1500, split="train"))
    for sign in ("took the", "pretended that", "is older than", "because", "sense", "was negative"):
        assert drawn.count(sign) > 5


def test_prose_is_mixed_in_and_its_held_out_part_never_trained_on(tmp_path):
    lines = [f"{a} {b} {i}." for i, (a, b) in enumerate(itertools.product(ENGLISH, ENGLISH))]
    (tmp_path / "book.txt").write_text("\n".join(lines[:2000]))
    written = corpus.write(
        tmp_path / "out",
        {"train": 300, "validation": 100},
        prose=[str(tmp_path / "*.txt")],
        prose_share=0.5,
    )
    train = written["train"].read_text().splitlines()
    held_out = written["validation"].read_text().splitlines()
    assert (len(train), len(held_out)) == (450, 150)
    assert not set(train) & set(held_out)
    assert sum(any(line in text for line in ENGLISH) for text in train) == 150


def test_long_paragraphs_of_prose_are_cut_at_ends_of_sentences(tmp_path):
    sentences = [f"This is sentence {i} of a long, long book." for i in range(400)]
    (tmp_path / "book.txt").write_text(" ".join(sentences))
    files = [str(tmp_path / "book.txt")]
    documents = [
        d for split in corpus.SPLITS for d in corpus.documents(0, split=split, prose=files)
    ]
    assert len(documents) > 10
    assert sum(d.count("book.") for d in documents) == 400
    assert all(d.endswith("book.") and len(d) < 320 for d in documents)
