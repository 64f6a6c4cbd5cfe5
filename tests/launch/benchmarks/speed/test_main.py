"""Both sides do every kind of work at a tiny size; no time is asserted."""

import dataclasses

import pytest

from prompt_tuning.launch.benchmarks.speed import __main__ as speed
from prompt_tuning.launch.benchmarks.speed.rows import ROWS

pytest.importorskip("peft")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["step", "train_rte", "infer_rte", "rank", "greedy", "beam", "start"]
)
def test_every_kind_of_work_gives_positive_ratios(name, monkeypatch):
    # As on a user's machine; the tests have eight devices.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    row = ROWS[name]
    sizes = {"batch_size": 2, "inputs": 32, "targets": min(row.work.targets, 8)}
    num_examples = min(row.work.num_examples, 8)
    work = dataclasses.replace(row.work, size="tiny", num_examples=num_examples, **sizes)
    lines, versions = speed.measure(dataclasses.replace(row, work=work, passes=1))
    assert {"jax", "torch", "peft", "transformers"} <= set(versions)
    assert len(lines) == len(row.variants) + row.has_memory
    for line in lines:
        ours, theirs, ratio = (float(x.replace(",", "")) for x in line.split("|")[3:6])
        assert ours > 0 and theirs > 0 and ratio > 0


def test_an_unknown_row_is_told(capsys):
    with pytest.raises(SystemExit):
        speed.main(["--only=stepp"])
    assert "got ['stepp'], expected names of ['step'," in capsys.readouterr().err
