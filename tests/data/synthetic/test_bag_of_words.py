"""The bag-of-words baseline: it finds what words tell, and on the synthetic tasks there is next to nothing to find."""

import numpy as np
import pytest

from prompt_tuning.data.synthetic import benchmark
from tests.data.synthetic import bag_of_words


def test_it_learns_what_single_words_tell():
    rng = np.random.default_rng(0)
    words = ["good", "bad", "the", "soup", "was", "very"]
    rows = []
    for i in range(400):
        label = int(rng.integers(2))
        text = [words[1 - label], *rng.choice(words[2:], 4)]
        rows.append({"sentence": " ".join(rng.permutation(text)), "label": label, "idx": i})
    vocabulary = bag_of_words.vocabulary_of(rows)
    assert "sentence:soup" in vocabulary and "soup" in vocabulary
    features, labels = bag_of_words.counts(rows, vocabulary), bag_of_words.labels(rows)
    weights = bag_of_words.fit(features[:300], labels[:300], 2)
    assert np.mean(np.argmax(features[300:] @ weights, axis=1) == labels[300:]) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(benchmark.FORMS))
def test_single_words_tell_next_to_nothing_of_a_synthetic_label(name):
    row = bag_of_words.score(name)
    # Of 800 held-out examples; two standard errors are 3.5 points.
    mean = (row["bag of words validation"] + row["bag of words test"]) / 2
    assert mean < 100 / len(benchmark.FORMS[name].classes) + 6, row
