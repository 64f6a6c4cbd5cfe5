"""A run that is told to stop saves, stops, and when it is started again ends as if nothing had happened."""

import os
import signal
import threading

import numpy as np
import pytest
from jax.experimental import multihost_utils

from prompt_tuning import train
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.run import inference, preemption
from prompt_tuning.run.preemption import Notice, Preempted
from tests import tiny_run
from tests.tiny_run import PROMPT_FILE

STEPS = 4


def _told() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(tmp_path):
    """Returns a function that trains in a folder, or goes on there; four steps, evaluated after every second."""
    inputs = tiny_run.make_inputs(tmp_path)

    def run_in(folder: str):
        settings = {
            "MODEL_DIR": str(tmp_path / folder),
            "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
            "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
            "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
            "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
            "TRAIN_STEPS_RELATIVE": STEPS,
            "EVAL_PERIOD": 2,
            "EVAL_STEPS": 1,
            "BATCH_SIZE": 8,
            "PROMPT_LENGTH": 4,
            "RANDOM_SEED": 3,
        }
        files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")
        argv = [*(f"--gin_file={f}" for f in files), *inputs.flags(**settings)]
        flags = parse_run("train", argv)
        parsed = config_files.read(flags.gin_file, flags.bindings, [])
        return resolve.resolve(parsed, train.train, command="train").run()

    return run_in


def _steps(folder) -> list[int]:
    return sorted(int(p.name.split("_")[1]) for p in folder.glob("checkpoint_*"))


@pytest.mark.slow
@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_sigterm_in_a_save_a_step_and_an_evaluation_changes_nothing(
    run, tmp_path, monkeypatch, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    batches = []

    def save(self, step, *args):
        if step == 2:
            _told()
        return saved(self, step, *args)

    def add(self, step, metrics):
        added(self, step, metrics)
        if step == 3:
            _told()

    def stack(rows, count):
        batches.append(len(rows))
        if len(batches) == 1:
            _told()
        return stacked(rows, count)

    saved, added = train.Checkpointer.save, train.RunLog.add
    stacked = inference.stacked
    # (what is interrupted, with what, step that is saved then)
    interruptions = (
        ((train.Checkpointer, "save"), save, [2]),
        ((train.RunLog, "add"), add, [2, 3]),
        ((inference, "stacked"), stack, [2, 4]),
    )
    for where, stand_in, steps in interruptions:
        # The evaluation of step 2 is repeated in the second attempt and must not be told to stop.
        with monkeypatch.context() as patch, pytest.raises(Preempted) as caught:
            patch.setattr(*where, stand_in)
            run("stopped")
        assert caught.value.code == preemption.EXIT_CODE == 143
        assert signal.getsignal(signal.SIGTERM) is before
        assert _steps(tmp_path / "stopped") == steps
        assert f"step {steps[-1]} is saved" in capsys.readouterr().out
    assert batches == [8], "the evaluation of 16 examples went on"

    results = run("stopped")
    assert results == run("straight")
    assert _steps(tmp_path / "stopped") == _steps(tmp_path / "straight")
    for step in (2, 4):
        name = f"numpy_checkpoints/checkpoint_{step}/{PROMPT_FILE}"
        prompts = [np.load(tmp_path / folder / name) for folder in ("straight", "stopped")]
        np.testing.assert_array_equal(*prompts)


def test_a_notice_counts_from_listen_until_close():
    earlier = []
    before = signal.signal(signal.SIGTERM, lambda *_: earlier.append(1))
    try:
        notice = Notice()
        _told()
        assert not notice.received() and len(earlier) == 1
        notice.listen()
        notice.stop_if_received()
        _told()
        assert notice.received() and len(earlier) == 1
        with pytest.raises(SystemExit):
            notice.stop_if_received()
        notice.close()
        _told()
        assert len(earlier) == 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_leaves_the_signal_alone():
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=Notice().listen)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


def test_several_processes_ask_with_rising_numbers_until_they_agree(monkeypatch):
    asked = []

    def reached(number):
        asked.append(number)
        return len(asked) == 3

    monkeypatch.setattr(Notice, "_is_shared", lambda self: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", reached)
    notice = Notice()
    notice.listen()
    assert [notice.received() for _ in range(5)] == [False, False, True, True, True]
    assert asked == list(range(asked[0], asked[0] + 3))
    Notice().received()
    assert asked[-1] == asked[0] + 3, "a second run counts on"
