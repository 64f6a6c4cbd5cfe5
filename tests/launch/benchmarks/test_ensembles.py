"""The benchmark of ensembles runs anywhere at a tiny size, without TensorFlow; no time is asserted."""

import json
import subprocess
import sys

import pytest

from prompt_tuning.launch.benchmarks import ensembles
from tests.helpers import REPO


@pytest.mark.slow
def test_both_ways_give_the_same_answers_without_tensorflow(tmp_path):
    code = (
        "import sys; from prompt_tuning.launch.benchmarks import ensembles;"
        "ensembles.main(sys.argv[1:]);"
        "assert not {'tensorflow', 'seqio', 'gin'} & {m.partition('.')[0] for m in sys.modules}"
    )
    flags = ["--sizes=tiny", "--num_prompts=3", "--rounds=1", f"--json={tmp_path / 'rows'}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "rows").read_text())
    assert (row["same_answers"], row["answers"]) == (6, 6)
    together, separate = (row[name] for name in (ensembles.ENSEMBLE, ensembles.SEPARATE))
    # Both hold three prompts, and the masks of the table.
    prompts = 3 * 100 * 32 * 4
    weights = together["weight_bytes"] - prompts - 3 * 100 * 4
    assert separate["weight_bytes"] == 3 * weights + prompts
    for way in (together, separate):
        assert way["ms_range"][0] <= way["ms"] <= way["ms_range"][1]
        assert way["temp_bytes"] > 0 and way["host_peak_bytes"] > way["weight_bytes"]
    assert "6 of 6 answers are the same" in done.stdout


@pytest.mark.slow
def test_copies_that_do_not_fit_are_told_and_not_made(monkeypatch):
    there_is = {"bytes_limit": 10 * 2**20}
    monkeypatch.setattr(ensembles, "_device_bytes", there_is.get)
    row = ensembles.measure("tiny", ensembles.Workload(num_prompts=2), num_rounds=1)
    assert row["ensemble"]["ms"] > 0 and "same_answers" not in row
    assert row["separate runs"] == {
        "error": "2 copies of the weights take 16 MiB, more than the 10 there are"
    }
    assert "more than the 10 there are" in ensembles.format_row(row)
