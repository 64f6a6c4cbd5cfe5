"""Real processes train, evaluate and infer as one does, on the same global batches, and go on where others stopped."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.errors import ConfigError
from prompt_tuning.run import preemption, processes
from tests import tiny_run
from tests.data import ranked_mixture
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


def _environment(devices: int) -> dict[str, str]:
    """What a process with so many virtual devices is started with."""
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    flags = re.sub(r"(device_count=)\d+", rf"\g<1>{devices}", os.environ["XLA_FLAGS"])
    return {**os.environ, "PYTHONPATH": python_path, "XLA_FLAGS": flags}


def _run(count: int, argv: list[str]) -> None:
    """Runs the command in `count` processes that share eight virtual devices; one is this process, which has eight."""
    if count == 1:
        assert cli.main(argv) == 0
        return
    env = _environment(8 // count)
    address = f"127.0.0.1:{_free_port()}"
    started = []
    for index in range(count):
        join = [
            "--multiprocess_gpu",
            f"--coordinator_address={address}",
            f"--process_count={count}",
            f"--process_index={index}",
        ]
        command = [sys.executable, "-m", "prompt_tuning", *argv, *(join if count > 1 else [])]
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
@pytest.mark.timeout(1200)
@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_two_processes_equal_one(tmp_path):
    # Ten examples in batches of eight: the last batch is uneven.
    inputs = tiny_run.make_inputs(tmp_path, validation=10)
    for count in (1, 2):
        model_dir, out = tmp_path / f"run{count}", tmp_path / f"out{count}"
        train = inputs.flags(
            **TASK,
            MODEL_DIR=str(model_dir),
            INITIAL_CHECKPOINT_PATH=str(inputs.checkpoint),
            TRAIN_STEPS=STEP + 3,
            RANDOM_SEED=5,
            EVAL_STEPS=2,
            # Ten inputs are encoded for thirty labels: the last batch of scores is uneven too.
            **{
                "infer_eval/utils.DatasetConfig.mixture_or_task_name": ranked_mixture.MIXTURE,
                "infer_eval/utils.DatasetConfig.module": "tests.data.ranked_mixture",
            },
        )
        files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")
        train = [*(f"--gin_file={f}" for f in files), *train]
        _run(count, ["train", *train])
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
        _run(count, ["infer", *(f"--gin_file={f}" for f in files), *infer])

    prompts, metrics, scores = [], [], []
    for count in (1, 2):
        model_dir = tmp_path / f"run{count}"
        prompts.append(np.load(model_dir / "numpy_checkpoints/checkpoint_3" / PROMPT_FILE))
        paths = [
            model_dir / f"inference_eval/{task}-metrics.jsonl" for task in ranked_mixture.TASKS
        ]
        metrics.append([json.loads(line) for p in paths for line in p.read_text().splitlines()])
        name = "taskless_super_glue_cb_v102-score.jsonl-00000-of-00001"
        lines = (tmp_path / f"out{count}" / name).read_text().splitlines()
        scores.append([json.loads(line)["score"] for line in lines])
    np.testing.assert_allclose(prompts[0], prompts[1], atol=TOLERANCE)
    assert metrics[0] == metrics[1] and len(metrics[0]) == 2
    assert metrics[0][1]["accuracy"] in [10.0 * right for right in range(11)]
    assert len(scores[0]) == len(scores[1]) == 10
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)

    # What two processes have saved, one goes on from, and then two; and one that was alone all the time.
    for count, name, steps in ((1, "run1", 5), (1, "run2", 4), (2, "run2", 5)):
        more = [f"--gin.MODEL_DIR='{tmp_path / name}'", f"--gin.TRAIN_STEPS={STEP + steps}"]
        _run(count, ["train", *train, *more, "--gin.EVAL_STEPS=0"])
    name = f"numpy_checkpoints/checkpoint_5/{PROMPT_FILE}"
    one, two = (np.load(tmp_path / run / name) for run in ("run1", "run2"))
    np.testing.assert_allclose(one, two, atol=TOLERANCE)
    assert not np.allclose(one, prompts[0], atol=100 * TOLERANCE)


def test_only_a_machine_with_chips_asks_whether_it_is_part_of_a_pod(monkeypatch):
    asked = []
    chips, environment, answer = [], {}, ""

    def metadata(attribute):
        asked.append(attribute)
        return answer

    monkeypatch.setattr(processes.glob, "glob", lambda pattern: chips)
    monkeypatch.setattr(processes.importlib.util, "find_spec", lambda name: "libtpu")
    monkeypatch.setattr(processes, "_metadata", metadata)
    monkeypatch.setattr(processes.os, "environ", environment)
    assert not processes.on_tpu_pod() and not asked
    chips = ["/dev/vfio/0"]
    environment["JAX_PLATFORMS"] = "cpu"
    assert not processes.on_tpu_pod() and not asked
    environment["JAX_PLATFORMS"] = "tpu,cpu"
    for variable, value, expected in (
        ("TPU_WORKER_HOSTNAMES", "a", False),
        ("TPU_WORKER_HOSTNAMES", "a,b", True),
        ("TPU_PROCESS_ADDRESSES", "a:1,b:1", True),
        ("MEGASCALE_NUM_SLICES", "2", True),
        ("MEGASCALE_NUM_SLICES", "1", False),
    ):
        environment[variable] = value
        assert processes.on_tpu_pod() is expected, variable
        del environment[variable]
    asked.clear()
    for given, expected in (("", False), ("h1", False), ("h1,h2", True)):
        answer = given
        assert processes.on_tpu_pod() is expected
    assert asked == ["worker-network-endpoints"] * 3


def test_no_metadata_server_is_no_pod(monkeypatch):
    monkeypatch.setattr(processes, "_METADATA", "http://127.0.0.1:9/{}")
    assert processes._metadata("worker-network-endpoints") == ""


def test_a_run_listens_at_the_address_that_it_was_given_and_nowhere_else():
    port = _free_port()
    code = f"""
from prompt_tuning.run import processes
processes.join("127.0.0.1:{port}", 1, 0, saves_on_sigterm=False)
input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not _answers("127.0.0.1", port) and time.monotonic() < deadline:
                time.sleep(0.2)
            assert _answers("127.0.0.1", port)
            # Another address of the same machine; every Linux has them.
            assert not _answers("127.0.0.2", port)
        finally:
            process.kill()


_STRANGER = """
import sys, jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), initialization_timeout=5)
"""
_OF_THE_RUN = """
import sys, jax
from prompt_tuning.run import processes
processes.join(sys.argv[1], 2, int(sys.argv[2]), saves_on_sigterm=False)
from jax.experimental import multihost_utils
print("joined", flush=True)
input()
multihost_utils.sync_global_devices("after the stranger")
"""


@pytest.mark.slow
def test_a_stranger_at_another_address_neither_joins_a_run_nor_ends_it():
    port = _free_port()

    def start(code, host, index):
        command = [sys.executable, "-c", code, f"{host}:{port}", str(index)]
        pipe = subprocess.PIPE
        # One device: of eight that wait for each other on two cores, some may never get a thread.
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=_environment(1)
        )
        started.enter_context(process)
        started.callback(process.kill)
        return process

    with contextlib.ExitStack() as started:
        run = [start(_OF_THE_RUN, "127.0.0.1", index) for index in range(2)]
        for process in run:
            assert process.stdout is not None and process.stdout.readline() == "joined\n"
        # As process 0 it makes a run of its own, for which nobody else comes; as process 1 it finds none.
        for index in range(2):
            stranger = start(_STRANGER, "127.0.0.2", index)
            stranger.communicate(timeout=120)
            assert stranger.returncode != 0
        assert [process.poll() for process in run] == [None, None]
        # They wait for one another.
        for process in run:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in run:
            _, error = process.communicate(timeout=120)
            assert process.returncode == 0, error


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_processes_that_nothing_names_are_an_error(monkeypatch):
    def initialize(*args, **kwargs):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.config, "update", lambda *args: None)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConfigError, match="got 'coordinator_address.*Fix: give --coordinator_add"):
        processes.join(saves_on_sigterm=True)


@pytest.mark.parametrize(
    ("error", "shared", "code", "text"),
    [
        (preemption.Preempted(), False, 143, ""),
        (preemption.Preempted(), True, 143, ""),
        (
            ConfigError("No", got=1, expected="2", fix="do"),
            True,
            2,
            "error: No: got 1, expected 2.",
        ),
        (RuntimeError("a bug"), True, 1, "RuntimeError: a bug"),
        (KeyboardInterrupt(), True, 1, "KeyboardInterrupt"),
        (RuntimeError("a bug"), False, None, ""),
    ],
)
def test_a_process_that_others_wait_for_ends_at_once(
    monkeypatch, capsys, error, shared, code, text
):
    left = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: shared)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: left.append("shutdown"))
    monkeypatch.setattr(processes.os, "_exit", left.append)
    with contextlib.nullcontext() if code else pytest.raises(RuntimeError, match="a bug"):
        with processes.ending_together():
            raise error
    expected = ["shutdown", code] if code == 143 else [code] if code else []
    assert left == expected
    printed = capsys.readouterr().err
    assert text in printed
    assert ("and with it all others" in printed) is bool(text)
