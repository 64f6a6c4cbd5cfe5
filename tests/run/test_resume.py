"""Runs that are told to stop, or killed without notice, end with the same prompt, bit for bit; `launch.local` goes on.

A soak, which no CI runs, interrupts a run of one process and one of two, each as often as it is told to:
    PROMPT_TUNING_SOAK=20 python -m pytest -s -n 0 -m slow tests/run/test_resume.py
`PROMPT_TUNING_SOAK_SIGNAL=SIGTERM` sends that signal alone.
"""

import itertools
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.method_files.method_set import METHOD_FILE
from tests import tiny_run
from tests.helpers import REPO
from tests.tiny_run import PROMPT_FILE

FILES = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")
# What is tuned -> a file behind those, and what a run leaves of it.
TUNED = {
    "prompt": ((), PROMPT_FILE),
    "ia3": (("methods/ia3.gin",), METHOD_FILE),
    "lora": (("methods/lora.gin",), METHOD_FILE),
}
SAVE_PERIOD = 3
# Interruptions of a soak, all at random moments; without one, one of each kind.
SOAK = int(os.environ.get("PROMPT_TUNING_SOAK", "0"))
SIGNALS = [signal.SIGTERM, signal.SIGKILL]
if "PROMPT_TUNING_SOAK_SIGNAL" in os.environ:
    SIGNALS = [signal.Signals[os.environ["PROMPT_TUNING_SOAK_SIGNAL"]]]
STEPS = 30 * max(2, SOAK)


def _command(inputs, model_dir, processes, tuned) -> list[str]:
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
        "utils.SaveCheckpointConfig.period": SAVE_PERIOD,
    }
    flags = [
        *(f"--gin_file={name}" for name in (*FILES, *TUNED[tuned][0])),
        *inputs.flags(**settings),
    ]
    launcher = [f"--processes={processes}", "--devices_per_process=1", "--restart"]
    max_crashes = f"--max_crashes={max(1, SOAK)}"
    program = [sys.executable, "-m", "prompt_tuning.launch.local", *launcher, max_crashes]
    return [*program, "--", "train", *flags]


def _start(command, log) -> subprocess.Popen:
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": python_path, "XLA_FLAGS": ""}
    return subprocess.Popen(command, env=env, cwd=REPO, stdout=log, stderr=subprocess.STDOUT)


def _steps(folder: pathlib.Path) -> list[int]:
    names = [p.name.split("_")[1] for p in folder.glob("checkpoint_*")]
    return sorted(int(name) for name in names if name.isdigit())


def _first_steps(log: pathlib.Path) -> list[int]:
    """The first step that each attempt has finished."""
    return [int(step) for step in re.findall(r"Step (\d+) is done", log.read_text())]


def _children(pid: int) -> list[int]:
    listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _interrupt(launcher, model_dir, log, attempt, signum, rng) -> int:
    """Signals one process of an attempt at a random moment after its first step; returns the newest step saved."""
    deadline = time.monotonic() + 400
    while len(_first_steps(log)) < attempt:
        assert launcher.poll() is None, "the run ended before it was interrupted"
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.01)
    time.sleep(rng.random() * (1 if SOAK else 0.3))
    children = _children(launcher.pid)
    saved = max(_steps(model_dir), default=0)
    began = time.monotonic()
    os.kill(rng.choice(children), signum)
    while any(pathlib.Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() - began < 60, f"a process outlived {signum.name} by a minute"
        time.sleep(0.01)
    print(f"{signum.name}: all {len(children)} ended after {time.monotonic() - began:.1f} s")
    return saved


def _numbers(file: pathlib.Path) -> np.ndarray:
    """All numbers of a prompt's file, or of a method's."""
    if file.name == PROMPT_FILE:
        return np.load(file)
    return np.concatenate(
        [np.ravel(x) for _, x in sorted(safetensors.numpy.load_file(file).items())]
    )


@pytest.mark.slow
@pytest.mark.entry
@pytest.mark.timeout(6000 if SOAK else 900)
@pytest.mark.parametrize(
    ("processes", "tuned"),
    # What is tuned is saved alike: that of methods is resumed in tests/run/test_method_start.py.
    itertools.product([1, 2], TUNED) if SOAK else [(2, "prompt")],
)
def test_interruptions_at_random_moments_change_nothing(tmp_path, processes, tuned):
    inputs = tiny_run.make_inputs(tmp_path, validation=4)
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    signals = [rng.choice(SIGNALS) for _ in range(SOAK)] or SIGNALS
    stopped, text = tmp_path / "stopped", tmp_path / "log.txt"
    with text.open("w") as log:
        straight = _command(inputs, tmp_path / "straight", processes, tuned)
        assert _start(straight, log).wait(timeout=900) == 0, text.read_text()[-3000:]
    with text.open("w") as log:
        launcher = _start(_command(inputs, stopped, processes, tuned), log)
        saved = [
            _interrupt(launcher, stopped, text, attempt, signum, rng)
            for attempt, signum in enumerate(signals, start=1)
        ]
        assert launcher.wait(timeout=900) == 0, text.read_text()[-3000:]

    resumed = _first_steps(text)[1:]
    assert len(resumed) == len(saved) == len(signals)
    for step, before, signum in zip(resumed, saved, signals, strict=True):
        assert step > before, f"lost what was saved before {signum.name}"
    assert text.read_text().count("The run was told to stop") == signals.count(signal.SIGTERM)
    names = [f"numpy_checkpoints/checkpoint_{step}/{TUNED[tuned][1]}" for step in (3, 30, STEPS)]
    for name in names:
        one, other = (_numbers(tmp_path / run / name) for run in ("straight", "stopped"))
        assert np.array_equal(one, other), f"{name} differs; seed {seed}, {processes} process(es)"
    first, last = (_numbers(stopped / names[i]) for i in (0, -1))
    assert not np.array_equal(first, last)
