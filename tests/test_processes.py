"""Two real processes train, evaluate and infer as one does, on the same global batches."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny_run
from tests.helpers import REPO
from tests.tiny_run import PROMPT_FILE, STEP

LENGTHS = {"inputs": 32, "targets": 16}
TASK = {
    "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
    "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
    "TASK_FEATURE_LENGTHS": LENGTHS,
    "BATCH_SIZE": 8,
    "PROMPT_LENGTH": 4,
}
# Sums are added in another order across processes; the first updates are lr * sign(gradient).
TOLERANCE = 1e-4


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def _run(processes: int, argv: list[str]) -> None:
    """Runs the command in `processes` processes that share eight virtual devices."""
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    devices = f"--xla_force_host_platform_device_count={8 // processes}"
    env = {**os.environ, "PYTHONPATH": python_path, "XLA_FLAGS": devices}
    address = f"127.0.0.1:{_free_port()}"
    started = []
    for index in range(processes):
        join = [
            "--multiprocess_gpu",
            f"--coordinator_address={address}",
            f"--process_count={processes}",
            f"--process_index={index}",
        ]
        command = [sys.executable, "-m", "prompt_tuning", *argv, *(join if processes > 1 else [])]
        started.append(
            subprocess.Popen(
                command,
                env=env,
                cwd=REPO,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in started:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output[-3000:]


@pytest.mark.slow
@pytest.mark.entry
def test_two_processes_equal_one(tmp_path):
    # Ten examples in batches of eight: the last batch is uneven.
    inputs = tiny_run.make_inputs(tmp_path, validation=10)
    for processes in (1, 2):
        model_dir, out = tmp_path / f"run{processes}", tmp_path / f"out{processes}"
        train = inputs.flags(
            **TASK,
            MODEL_DIR=str(model_dir),
            INITIAL_CHECKPOINT_PATH=str(inputs.checkpoint),
            TRAIN_STEPS=STEP + 3,
            RANDOM_SEED=5,
            EVAL_STEPS=2,
        )
        files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")
        _run(processes, ["train", *(f"--gin_file={f}" for f in files), *train])
        infer = inputs.flags(
            **TASK,
            CHECKPOINT_PATH=str(model_dir / "checkpoint_3"),
            INFER_OUTPUT_DIR=str(out),
            **{
                "infer.mode": "score",
                "utils.DatasetConfig.split": "validation",
                "utils.RestoreCheckpointConfig.dtype": "float32",
            },
        )
        files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_infer.gin")
        _run(processes, ["infer", *(f"--gin_file={f}" for f in files), *infer])

    prompts, metrics, scores = [], [], []
    for processes in (1, 2):
        model_dir = tmp_path / f"run{processes}"
        prompts.append(np.load(model_dir / "numpy_checkpoints/checkpoint_3" / PROMPT_FILE))
        path = model_dir / "inference_eval/taskless_super_glue_cb_v102-metrics.jsonl"
        metrics.append([json.loads(line) for line in path.read_text().splitlines()])
        name = "taskless_super_glue_cb_v102-score.jsonl-00000-of-00001"
        lines = (tmp_path / f"out{processes}" / name).read_text().splitlines()
        scores.append([json.loads(line)["score"] for line in lines])
    np.testing.assert_allclose(prompts[0], prompts[1], atol=TOLERANCE)
    assert metrics[0] == metrics[1] and len(metrics[0]) == 1
    assert len(scores[0]) == len(scores[1]) == 10
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)
