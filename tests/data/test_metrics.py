"""Metrics and post-processing; the numbers themselves are compared in tests/parity."""

import math

import numpy as np
import pytest
import seqio

from prompt_tuning.data import answer_metrics, metrics, postprocessors
from prompt_tuning.data.benchmarks import reading


@pytest.mark.parametrize(
    "metric_fn",
    [metrics.accuracy, metrics.binary_f1, metrics.pearson_corrcoef, metrics.spearman_corrcoef],
)
def test_targets_and_predictions_must_be_as_many(metric_fn):
    with pytest.raises(ValueError):
        metric_fn([1, 0, 1], [1, 0])
    with pytest.raises(ValueError):
        answer_metrics.squad([["a"], ["b"]], ["a"])


def test_what_no_metric_can_say_is_an_error_or_not_a_number():
    with pytest.raises(ValueError, match="targets hold"):
        metrics.binary_f1([-1, -1], [0, 1])
    with pytest.raises(ValueError, match="at least 2"):
        metrics.pearson_corrcoef([1.0], [1.0])
    # The mean of these is another number than they are.
    same = [0.1] * 3
    for metric_fn in (metrics.pearson_corrcoef, metrics.spearman_corrcoef):
        (value,) = metric_fn([1.0, 2.0, 3.0], same).values()
        assert math.isnan(value)
    assert metrics.matthews_corrcoef([0, 1], [1, 1]) == {"matthews_corrcoef": 0.0}
    with pytest.raises(ValueError):
        answer_metrics.squad([[]], ["a question without right answers"])


def test_the_first_of_a_group_counts():
    metric_fn = answer_metrics.first_of_group(answer_metrics.squad)
    targets = [{"value": ["a b c"], "group": (0, g)} for g in (0, 0, 1)]
    predictions = [{"value": text} for text in ("A b! C", "c", "the b")]
    # "a" is an article: of "b c", "b" is a half of the words, and all of what was said.
    assert metric_fn(targets, predictions) == {"em": 50.0, "f1": pytest.approx(100 * 5 / 6)}


@pytest.mark.parametrize(
    ("target", "prediction", "is_right"),
    [
        (1, 1, True),
        (1, -1, False),
        (["A b", "c"], "the C.", True),
        (["A b c"], "b", False),
        ({"value": 1, "group": 0}, {"value": 1}, True),
        ({"value": ["Oslo"], "group": (0, 1)}, {"value": "Bergen"}, False),
    ],
)
def test_shown_as_wrong_is_what_is_wrong(target, prediction, is_right):
    assert answer_metrics.is_right(target, prediction) is is_right


def test_logged_questions_show_their_answers():
    postprocess = postprocessors.with_examples(
        reading.all_answers, ("context", "question", "answers")
    )
    answers = np.array([b"Oslo", "Tromsø".encode(), b"Oslo"], dtype=object)
    example = {"context": b"c", "question": b"q", "answers": answers}
    assert postprocess("x", example=example, is_target=True) == ["Oslo", "Tromsø", "Oslo"]
    text = answer_metrics.format_answers(postprocess("Bergen", example=example))
    assert text == "context: c\n\nquestion: q\n\nanswers: Oslo; Tromsø\n\nprediction: Bergen"


def test_answers_in_other_words_are_translated():
    words = ("not_equivalent", "equivalent")
    postprocess = postprocessors.translated(
        postprocessors.label_index(words), {"duplicate": "equivalent"}
    )
    texts = ["not_duplicate", "duplicate", "equivalent", "other"]
    assert [postprocess(text) for text in texts] == [0, 1, 1, -1]
    assert postprocess("not_equivalent", is_target=True) == 0


def test_logged_examples_show_what_is_wrong():
    postprocess = postprocessors.with_examples(postprocessors.label_index(["no", "yes"]))
    texts = [(f"input {i}", "yes" if i % 2 else "no") for i in range(20)]
    predictions = [
        # Inputs below 3 are answered by a word that is no label.
        postprocess(
            "maybe" if i < 3 else target,
            example={"inputs_pretokenized": text.encode(), "targets_pretokenized": target.encode()},
        )
        for i, (text, target) in enumerate(texts)
    ]
    targets = [postprocess(target, is_target=True) for _, target in texts]
    assert targets == [0, 1] * 10
    assert predictions[0] == {
        "prediction": -1,
        "prediction_pretokenized": "maybe",
        "inputs_pretokenized": "input 0",
        "targets_pretokenized": "no",
    }
    assert metrics.on_values(metrics.accuracy)(targets, predictions) == {"accuracy": 85.0}
    shown = metrics.sample_texts("rte", num_examples=8)(targets, predictions)
    assert shown.keys() == {"rte samples", "rte negative samples"}
    assert all(isinstance(text, seqio.metrics.Text) for text in shown.values())
    assert shown["rte samples"].textdata.count("example: input") == 8
    wrong = shown["rte negative samples"].textdata
    assert wrong.count("prediction: maybe") == wrong.count("example: input") == 3
    assert shown == metrics.sample_texts("rte", num_examples=8)(targets, predictions)
