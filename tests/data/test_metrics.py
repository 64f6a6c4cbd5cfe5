"""Metrics and post-processing against the reference results."""

import json

import pytest
import seqio

from prompt_tuning.data import metrics, postprocessors
from tests.helpers import GOLDEN

METRICS = {
    "accuracy": [metrics.accuracy],
    "cb": [metrics.mean_multiclass_f1(num_classes=3), metrics.accuracy],
}


@pytest.mark.parametrize(("name", "num_cases"), [("accuracy", 5), ("cb", 4)])
def test_metrics_equal_t5s(name, num_cases):
    cases = json.loads((GOLDEN / "metrics" / f"{name}.json").read_text())["cases"]
    assert len(cases) == num_cases
    for case in cases:
        result = {}
        for metric_fn in METRICS[name]:
            result |= metric_fn(case["targets"], case["predictions"])
        assert result == pytest.approx(case["result"], rel=1e-12), case["note"]


def test_labels_become_class_indices_as_in_t5():
    cases = json.loads((GOLDEN / "metrics" / "postprocess.json").read_text())
    cases = cases["string_label_to_class_id"]
    assert len(cases) >= 20 and {case["result"] for case in cases} >= {-1, 0, 1}
    for case in cases:
        postprocess = postprocessors.label_index(case["label_classes"])
        assert postprocess(case["prediction"]) == case["result"], case


def test_targets_and_predictions_must_be_as_many():
    with pytest.raises(ValueError):
        metrics.accuracy([1, 0], [1])


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
