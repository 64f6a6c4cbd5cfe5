"""Sweeps run by worker processes and through Ray finish with every cell once, whoever is killed on the way."""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.checkpoints import paths
from prompt_tuning.commands.sweep import progress, runner
from prompt_tuning.commands.sweep.cell import run
from prompt_tuning.commands.sweep.claims import FOLDER, Claims
from prompt_tuning.commands.sweep.results import Table
from tests import tiny_run
from tests.commands.sweep import tiny_sweep
from tests.helpers import REPO

# A runner of its own process, which imports little: the cells were expanded here.
RUNNER = """
import pathlib, pickle, sys
from prompt_tuning.commands.sweep import runner
runner.run(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()), jobs=1)
"""
# Every warning of Ray's is an error, and nobody is told that there is a cluster.
RAY_RUNNER = """
import os, pathlib, pickle, sys, warnings
warnings.simplefilter("error")
os.environ["RAY_AUTH_MODE"] = "disabled"
from prompt_tuning.commands.sweep import ray_runner
ray_runner.connect(None)
warnings.resetwarnings()
ray_runner.run(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()), {"CPU": 1})
"""


STEPS = 16


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


def _until(found, what, seconds=200.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def _worker_in_training(directory):
    """The process that has a cell in work which has saved a checkpoint; None if there is none yet."""
    for path in directory.glob(f"{FOLDER}/*.json"):
        if paths.steps_in(directory / "runs" / path.stem):
            return json.loads(path.read_text())["pid"]
    return None


def _start(session, directory, program=RUNNER):
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    (directory / "session").write_bytes(pickle.dumps(session))
    return subprocess.Popen(
        [sys.executable, "-c", program, str(directory / "session")],
        env={**os.environ, "PYTHONPATH": python_path, "XLA_FLAGS": ""},
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_killed_runner_and_a_killed_worker_lose_and_double_nothing(inputs, tmp_path):
    file = tiny_sweep.write(
        tmp_path / "tiny.gin",
        axes={"seed": tiny_sweep.seeds(0, 1)},
        bindings=tiny_sweep.bindings(
            inputs,
            TRAIN_STEPS_RELATIVE=STEPS,
            EVAL_PERIOD=STEPS // 2,
            **{"utils.SaveCheckpointConfig.period": 2},
        ),
    )
    session = tiny_sweep.session(file, tmp_path)

    first = _start(session, tmp_path)
    pid = _until(lambda: _worker_in_training(tmp_path), "a cell in training")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    _until(lambda: None if pathlib.Path(f"/proc/{pid}").exists() else True, "its worker ends", 60)
    assert not Table(tmp_path).read() and not list(tmp_path.glob(f"{FOLDER}/*.json"))

    second = _start(session, tmp_path)
    pid = _until(lambda: _worker_in_training(tmp_path), "a cell in training again")
    os.kill(pid, signal.SIGKILL)
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0
    rows = Table(tmp_path).read()
    assert sorted((row["cell"], row["status"]) for row in rows) == [
        ("seed=0", "done"),
        ("seed=1", "done"),
    ]
    assert [row["steps"] for row in rows] == [STEPS, STEPS]
    assert [len(row["curve"]) for row in rows] == [2, 2]
    assert output.count("score") == 2 and not list(tmp_path.glob(f"{FOLDER}/*.json"))
    # It was started three times, and the last two went on from a checkpoint.
    starts = pathlib.Path(rows[0]["log"]).read_text().split("=== ")[1:]
    assert [f"| 0/{STEPS} [" in text for text in starts] == [True, False, False]


class _Process:
    """A worker that has ended."""

    def __init__(self, exitcode):
        self.pid, self.exitcode = 4_000_000, exitcode

    def is_alive(self):
        return False


def _runner_of(session, lines):
    table = Table(session.place.directory)
    return runner._Runner(session, table, Claims(table), 1, lines.append)


def test_a_cell_that_kills_its_workers_is_recorded_as_failed(inputs, tmp_path, monkeypatch):
    axes = {"length": {n: {"command": "count", "bindings": {"PROMPT_LENGTH": n}} for n in (1, 2)}}
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    session = tiny_sweep.session(file, tmp_path)
    key = session.cells[0].key
    lines = []
    subject = _runner_of(session, lines)
    monkeypatch.setattr(subject, "_start", lambda: subject._processes.append(_Process(-9)))
    monkeypatch.setattr(Claims, "left_by", lambda self, pid: [key])
    for _ in range(runner.MAX_TRIES + 1):
        assert subject.goes_on()
    (row,) = Table(tmp_path).read()
    assert (row["key"], row["status"]) == (key, "failed")
    assert "-9" in row["error"] and "3 times" in row["error"]
    assert len(lines) == 1 and row["error"] in lines[0]


def test_a_run_of_two_sweeps_that_kills_its_workers_fails_in_both(inputs, tmp_path, monkeypatch):
    axes = {"length": {1: {"command": "count"}}}
    files = [
        tiny_sweep.write(
            tmp_path / f"{name}.gin", name=name, axes=axes, bindings=tiny_sweep.bindings(inputs)
        )
        for name in ("one", "two")
    ]
    session = tiny_sweep.session(files, tmp_path)
    assert len({cell.key for cell in session.cells}) == 1
    subject = _runner_of(session, [])
    monkeypatch.setattr(subject, "_start", lambda: subject._processes.append(_Process(-9)))
    monkeypatch.setattr(Claims, "left_by", lambda self, pid: [session.cells[0].key])
    assert [subject.goes_on() for _ in range(runner.MAX_TRIES + 1)][-1] is False
    rows = Table(tmp_path).read()
    assert [(row["sweep"], row["status"]) for row in rows] == [("one", "failed"), ("two", "failed")]


def test_workers_that_never_start_are_an_error(inputs, tmp_path, monkeypatch):
    axes = {"length": {1: {"command": "count"}}}
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    subject = _runner_of(tiny_sweep.session(file, tmp_path), [])
    monkeypatch.setattr(subject, "_start", lambda: subject._processes.append(_Process(1)))
    with pytest.raises(ValueError, match="workers.log"):
        for _ in range(runner.MAX_TRIES + 1):
            subject.goes_on()


def test_workers_that_were_told_to_end_are_replaced_as_long_as_cells_get_finished(
    inputs, tmp_path, monkeypatch
):
    axes = {"length": {n: {"command": "count", "bindings": {"PROMPT_LENGTH": n}} for n in (1, 2)}}
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    session = tiny_sweep.session(file, tmp_path)
    subject = _runner_of(session, [])
    monkeypatch.setattr(subject, "_start", lambda: subject._processes.append(_Process(143)))
    for _ in range(runner.MAX_TRIES):
        assert subject.goes_on()
    progress.record(session, session.cells[0], run(session.cells[0], session.place))
    for _ in range(runner.MAX_TRIES - 1):
        assert subject.goes_on()


def test_the_number_of_workers_follows_cores_and_memory(monkeypatch):
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**30 // 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(runner.glob, "glob", lambda pattern: [])
    found = []
    for cores in (1, 2, 6, 64):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, n=cores: set(range(n)))
        found.append(runner.default_jobs())
    assert found == [1, 2, 4, 4]
    monkeypatch.setattr(runner.glob, "glob", lambda pattern: ["/dev/accel0"])
    assert runner.default_jobs() == 1


@pytest.mark.slow
def test_ray_runs_cells_failures_included(inputs, tmp_path):
    pytest.importorskip("ray")
    axes = {
        "start": {
            "sound": {},
            "counted": {"command": "count"},
            "missing": {"bindings": {"INITIAL_CHECKPOINT_PATH": "/no/checkpoint_1"}},
        },
        "seed": tiny_sweep.seeds(0),
    }
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    process = _start(tiny_sweep.session(file, tmp_path), tmp_path, RAY_RUNNER)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    rows = {row["axes"]["start"]: row for row in Table(tmp_path).read()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "sound": "done",
        "counted": "done",
        "missing": "failed",
    }
    assert rows["sound"]["steps"] == 4 and "No checkpoint at" in rows["missing"]["error"]
    assert output.count("tiny start=") == 3 and not list(tmp_path.glob(f"{FOLDER}/*.json"))
    assert (tmp_path / "logs" / f"{rows['missing']['key']}.log").exists()
