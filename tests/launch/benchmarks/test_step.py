"""The benchmarks run and give ratios; no time is asserted."""

import dataclasses

import pytest

from prompt_tuning.launch.benchmarks import step
from tests.helpers import tiny_config


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(step.COMPARISONS)))
def test_every_comparison_gives_positive_ratios(monkeypatch, index):
    monkeypatch.setattr(step, "_ROUNDS", 1)
    monkeypatch.setattr(step, "_STEPS_A_ROUND", 1)
    question, *variants = step.COMPARISONS[index]
    small = tiny_config(vocab_size=8192)
    shrunk = [
        dataclasses.replace(v, config=dataclasses.replace(small, scan_layers=v.config.scan_layers))
        for v in variants
    ]
    row = step.measure((question, *shrunk))
    assert set(row["step_ms"]) == {v.name for v in variants}
    assert row["step_time_ratio"] > 0 and row["compile_time_ratio"] > 0
