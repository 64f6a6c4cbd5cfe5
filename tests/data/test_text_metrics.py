"""BLEU and ROUGE against values that can be counted by hand."""

import math
import sys

import pytest

from prompt_tuning.data import text_metrics
from prompt_tuning.errors import ConfigError

TARGETS = ["the cat sat on the mat", "a b c d e"]


def test_bleu_is_of_the_corpus():
    pytest.importorskip("sacrebleu", reason="needs the extra [t0]")
    assert text_metrics.bleu(TARGETS, TARGETS)["bleu"] == pytest.approx(100.0)
    # Of 6 + 4 words, 4 + 3, 3 + 2, 2 + 1 of each length all are right; one word of 11 is missing.
    shorter = text_metrics.bleu(TARGETS, ["the cat sat on the mat", "a b c d"])
    assert shorter["bleu"] == pytest.approx(100 * math.exp(1 - 11 / 10))


def test_rouge_is_the_mean_of_f1_over_examples():
    pytest.importorskip("rouge_score", reason="needs the extra [t0]")
    found = text_metrics.rouge(TARGETS, ["the cat sat on the mat", "a b c x y"])
    # Three of five words, two of four pairs, and a common sequence of three.
    assert found == pytest.approx({"rouge1": 80.0, "rouge2": 75.0, "rougeLsum": 80.0})


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ConfigError, match="sacrebleu.*t0"):
        text_metrics.bleu(TARGETS, TARGETS)
