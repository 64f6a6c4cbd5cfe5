"""Labels of texts are scored as `infer` scores them, and compared."""

import json
import math

import pytest

from prompt_tuning import cli
from tests.commands.serve.test_completions import TEXTS

LABELS = ["true", "false", "a quiet river"]


def test_scores_are_those_of_infer(served, inputs, tmp_path):
    rows = [{"task": "boolq", "inputs": t, "targets": label} for t in TEXTS for label in LABELS]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "INFER_OUTPUT_DIR": str(tmp_path),
        "INFER_INPUT_FILE": str(tmp_path / "rows.jsonl"),
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 12},
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
        "infer.mode": "score",
        "utils.RestoreCheckpointConfig.dtype": "float32",
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_infer.gin")
    argv = ["infer", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
    assert cli.main([*argv, f"--prompts=boolq={served.prompts['boolq']}"]) == 0
    lines = (tmp_path / "rows-score.jsonl-00000-of-00001").read_text().splitlines()
    expected = [json.loads(line)["score"] for line in lines]

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
