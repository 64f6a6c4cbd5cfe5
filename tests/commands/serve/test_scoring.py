"""Labels of texts are scored as `infer` scores them, and compared."""

import math

import pytest

from tests.commands.serve.test_completions import TEXTS

LABELS = ["true", "false", "a quiet river"]


def test_scores_are_those_of_infer(served, inputs, tmp_path):
    rows = [{"task": "boolq", "inputs": t, "targets": label} for t in TEXTS for label in LABELS]
    expected = [row["score"] for row in served.infer(inputs, tmp_path, rows, "score")]

    content = {"model": "boolq", "prompt": TEXTS, "labels": LABELS}
    status, answer, _ = served.ask("/v1/score", content)
    assert status == 200 and [row["index"] for row in answer["data"]] == [0, 1, 2, 3]
    scores = [s["logprob"] for row in answer["data"] for s in row["scores"]]
    assert scores == pytest.approx(expected, abs=1e-4)
    for row in answer["data"]:
        best = max(row["scores"], key=lambda s: s["logprob"])
        assert row["best"] == best["label"]
        assert math.fsum(s["probability"] for s in row["scores"]) == pytest.approx(1)
        assert [s["label"] for s in row["scores"]] == LABELS
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
