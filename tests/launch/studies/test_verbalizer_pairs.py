"""The script around the SST-2 runs: what it runs, what it skips, what it reports. The runs are tested elsewhere."""

import json
import subprocess
from collections import Counter

import pytest

from prompt_tuning.launch.studies import verbalizer_pairs


def test_a_run_is_started_once_and_its_last_metrics_are_kept(tmp_path, monkeypatch):
    started = []

    def stand_in(command, check):
        assert check
        started.append(command)
        folder = tmp_path / "run/inference_eval"
        folder.mkdir(parents=True)
        lines = [{"step": 1, "accuracy": 10.0}, {"step": 2, "accuracy": 60.0}]
        (folder / "task-metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    monkeypatch.setattr(subprocess, "run", stand_in)
    for _ in range(2):
        scores = verbalizer_pairs.train("sst2_prompt", tmp_path / "run", CLASS_LABELS=["no", "yes"])
        assert scores == {"task": {"step": 2, "accuracy": 60.0}}
    assert len(started) == 1
    assert "--gin.CLASS_LABELS=['no', 'yes']" in started[0]
    assert "--gin_file=prompt_tuning/configs/demo/sst2_prompt.gin" in started[0]


def test_the_newest_checkpoint_is_newest_by_number(tmp_path):
    for step in (900, 1000, 20):
        (tmp_path / f"checkpoint_{step}").mkdir()
    assert verbalizer_pairs.newest_checkpoint(tmp_path).name == "checkpoint_1000"


def test_the_report_shows_every_score_beside_the_majority_class(tmp_path, capsys):
    rows = [
        verbalizer_pairs.Row("sst2_yes_no", 50.92, 79.0, 12.5, 78.9),
        verbalizer_pairs.Row("cb", 50.0, None, None, 50.0),
    ]
    verbalizer_pairs.report(rows, Counter({"yes": 3, "no": 1}), tmp_path / "scores.json")
    shown = capsys.readouterr().out
    assert "'yes' x 3, 'no' x 1" in shown
    assert "sst2_yes_no                          50.92    79.00    12.50    78.90" in shown
    saved = json.loads((tmp_path / "scores.json").read_text())
    assert [row["majority"] for row in saved["rows"]] == [50.92, 50.0]


@pytest.mark.parametrize(("labels", "share"), [([1, 1, 0], 200 / 3), (["a", "b", "b", "b"], 75.0)])
def test_majority_is_the_share_of_the_commonest_label(labels, share):
    assert verbalizer_pairs.majority(labels) == pytest.approx(share)
