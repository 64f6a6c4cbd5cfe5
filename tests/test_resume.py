"""A run that is killed without notice and started again ends with the same prompt, bit for bit."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import tiny_run
from tests.helpers import REPO
from tests.tiny_run import PROMPT_FILE

STEPS = 60
FILES = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")


def _command(inputs, model_dir) -> list[str]:
    settings = {
        "MODEL_DIR": str(model_dir),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS_RELATIVE": STEPS,
        "EVAL_PERIOD": 20,
        "EVAL_STEPS": 1,
        "EVALUATOR_NUM_EXAMPLES": 4,
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
        "RANDOM_SEED": 7,
        "utils.SaveCheckpointConfig.period": 3,
    }
    flags = [*(f"--gin_file={name}" for name in FILES), *inputs.flags(**settings)]
    return [sys.executable, "-m", "prompt_tuning", "train", *flags]


def _start(command, log) -> subprocess.Popen:
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    # One device, as on a laptop; its sums have one order.
    env = {**os.environ, "PYTHONPATH": python_path, "XLA_FLAGS": ""}
    return subprocess.Popen(command, env=env, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)


def _prompts(model_dir: pathlib.Path) -> list[int]:
    folders = (model_dir / "numpy_checkpoints").glob("checkpoint_*")
    return sorted(int(p.name.split("_")[1]) for p in folders if p.name.split("_")[1].isdigit())


def _kill_after(process, model_dir, step, pause) -> None:
    """Sends SIGKILL `pause` seconds after the prompt of a step >= `step` appeared."""
    deadline = time.monotonic() + 240
    while max(_prompts(model_dir), default=0) < step:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.01)
    time.sleep(pause)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.entry
def test_two_sigkills_at_random_steps_change_nothing(tmp_path):
    inputs = tiny_run.make_inputs(tmp_path, validation=4)
    rng = random.Random()
    kills = (rng.randrange(3, 25), rng.randrange(30, 45))
    with (tmp_path / "log.txt").open("w") as log:
        assert _start(_command(inputs, tmp_path / "straight"), log).wait(timeout=300) == 0
        for step in kills:
            killed = _start(_command(inputs, tmp_path / "killed"), log)
            _kill_after(killed, tmp_path / "killed", step, rng.random() * 0.1)
        assert max(_prompts(tmp_path / "killed")) < STEPS, f"killed too late: {kills}"
        assert _start(_command(inputs, tmp_path / "killed"), log).wait(timeout=300) == 0
    names = [f"numpy_checkpoints/checkpoint_{step}/{PROMPT_FILE}" for step in (3, 30, STEPS)]
    for name in names:
        straight, killed = (
            np.load(tmp_path / "straight" / name),
            np.load(tmp_path / "killed" / name),
        )
        assert np.array_equal(straight, killed), f"{name} differs after kills near {kills}"
    first, last = (np.load(tmp_path / "straight" / names[i]) for i in (0, -1))
    assert not np.array_equal(first, last)
