"""What a run says of its updates: sums over steps become rates, on the terminal and in TensorBoard."""

import jax.numpy as jnp
import pytest
from etils import epath

from prompt_tuning.training import run_log
from prompt_tuning.training.metrics import timing
from prompt_tuning.training.run_log import RunLog

SUMS = {
    "target_tokens": 20.0,
    "sequences": 4.0,
    "examples": 10.0,
    "real_tokens": 100.0,
    "real_positions": 150.0,
    "positions": 200.0,
}


def test_rates_are_those_of_real_tokens_and_waste_counts_prompts_as_real():
    tags = timing(SUMS, num_steps=2, seconds=4.0, num_devices=2)
    # T5X's tags count what they always did.
    assert tags["timing/steps_per_second"] == 0.5
    assert tags["timing/seqs_per_second"] == 1.0
    assert tags["timing/target_tokens_per_second_per_core"] == 2.5
    assert tags["timing/examples_per_second"] == 2.5
    assert tags["timing/real_tokens_per_second"] == 25.0
    assert tags["padding_fraction"] == 0.25


def test_the_line_shows_tokens_and_padding_and_each_compilation_is_told(
    tmp_path, monkeypatch, capsys
):
    written = []
    monkeypatch.setattr(
        run_log.SummaryWriter, "scalars", lambda self, step, tags: written.append((step, tags))
    )
    log = RunLog(epath.Path(tmp_path), first=0, total=2)
    log.compiled(0, 1.5, "8 rows of 32 inputs and 16 targets", num_bytes=2**20)
    assert "Compiled the step for 8 rows of 32 inputs and 16 targets in 1.5 s" in (
        capsys.readouterr().out
    )
    metrics = {name: jnp.float32(1) for name in ("loss", "z_loss", "correct", "all_tokens")}
    for step in (1, 2):
        log.add(step, {**metrics, **SUMS})
    log.flush()
    log.close()
    assert "25% of positions padding" in capsys.readouterr().err
    (_, compiled), (step, tags) = written
    assert compiled == {"timing/compilation_seconds": 1.5, "memory/update_bytes": 2**20}
    assert step == 2
    assert tags["padding_fraction"] == pytest.approx(0.25)
