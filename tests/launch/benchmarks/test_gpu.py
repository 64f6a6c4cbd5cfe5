"""The GPU benchmark runs anywhere at a tiny size, without TensorFlow, and counts the products that XLA counts."""

import dataclasses
import json
import subprocess
import sys

import pytest

from prompt_tuning.launch.benchmarks import gpu
from prompt_tuning.launch.benchmarks.training_step import Step, Workload
from tests.helpers import REPO, tiny_config


def test_flop_are_those_of_the_compiled_step():
    # Wide enough that products outweigh everything else.
    config = tiny_config(
        **{"emb_dim": 256, "num_heads": 8, "head_dim": 32, "mlp_dim": 512, "dropout_rate": 0.0},
        num_decoder_layers=1,
    )
    work = Workload(batch_size=2, inputs=60, prompt_length=4, frozen_dtype="float32")
    analysis = Step(config, work).compiled.cost_analysis()
    assert analysis is not None
    assert gpu.model_flops(config, work) == pytest.approx(analysis["flops"], rel=0.01)


def test_flop_grow_with_the_batch_and_with_what_is_read():
    config, work = tiny_config(), Workload()
    once = gpu.model_flops(config, work)
    twice = gpu.model_flops(config, dataclasses.replace(work, batch_size=64))
    assert twice == 2 * once
    # Recomputation and slices are no work of the model's.
    same = dataclasses.replace(work, remat_policy="full", num_microbatches=4)
    assert gpu.model_flops(config, same) == once


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("cpu", None),
    ],
)
def test_peak_of_a_device(kind, peak):
    assert gpu.known_peak(kind) == peak


@pytest.mark.slow
def test_a_tiny_size_gives_a_row_without_tensorflow(tmp_path):
    code = (
        "import sys; from prompt_tuning.launch.benchmarks import gpu;"
        "gpu.main(sys.argv[1:]);"
        "assert not {'tensorflow', 'seqio', 'gin'} & {m.partition('.')[0] for m in sys.modules}"
    )
    flags = "--sizes=tiny --batch_size=4 --inputs=16 --num_microbatches=2 --remat_policy=full"
    flags += f" --frozen_dtype=int8 --steps=2 --peak_tflops=1 --json={tmp_path / 'rows'}"
    done = subprocess.run(
        [sys.executable, "-c", code, *flags.split()],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row == json.loads((tmp_path / "rows").read_text())
    assert row["step_ms_range"][0] <= row["step_ms"] <= row["step_ms_range"][1]
    assert row["model_flop_utilisation"] == pytest.approx(row["model_tflops"])
    assert row["model_tflops"] * row["step_ms"] / 1000 == pytest.approx(row["model_tflop_per_step"])
    assert row["frozen_dtype"] == "int8" and row["temp_bytes"] > 0
