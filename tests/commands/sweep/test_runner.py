"""Sweeps run by worker processes and through Ray finish with every cell once, whoever is killed on the way."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
import types

import pytest

from prompt_tuning.checkpoints import paths
from prompt_tuning.commands.sweep import progress, runner
from prompt_tuning.commands.sweep.cell import run
from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.results import Table
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


def _until(found, what, seconds=200.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


def _worker_in_training(directory, runner_pid):
    """The runner's worker, once a cell has saved a checkpoint; None before."""
    if not any(paths.steps_in(path) for path in directory.glob("runs/*")):
        return None
    children = pathlib.Path(f"/proc/{runner_pid}/task/{runner_pid}/children").read_text().split()
    # The other child keeps account of what processes share.
    for pid in children:
        if "spawn_main" in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
            return int(pid)
    return None


def _log_of_second_start(directory):
    """Whether a cell has begun again and made a step."""
    for log in directory.glob("logs/*.log"):
        starts = log.read_text().split("=== ")
        if len(starts) == 3 and f"/{STEPS} [" in starts[2]:
            return True
    return None


def _are_free(session):
    subject = Claims(session.place.directory)
    return all(subject.is_free(cell.key) for cell in session.cells)


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
    pid = _until(lambda: _worker_in_training(tmp_path, first.pid), "a cell in training")
    assert not _are_free(session)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    _until(lambda: None if pathlib.Path(f"/proc/{pid}").exists() else True, "its worker ends", 60)
    assert not Table(tmp_path).read() and _are_free(session)

    second = _start(session, tmp_path)
    _until(lambda: None if _are_free(session) else True, "a cell taken up again")
    pid = _until(lambda: _worker_in_training(tmp_path, second.pid), "its worker")
    _until(lambda: _log_of_second_start(tmp_path), "a cell in training again")
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
    assert output.count("score") == 2 and _are_free(session)
    # It was started three times, and the last two went on from a checkpoint.
    starts = pathlib.Path(rows[0]["log"]).read_text().split("=== ")[1:]
    assert [f"| 0/{STEPS} [" in text for text in starts] == [True, False, False]


@pytest.mark.slow
def test_two_runners_on_one_folder_run_every_cell_once(inputs, tmp_path):
    lengths = {
        n: {"command": "count", "bindings": {"PROMPT_LENGTH": n}} for n in (1, 2, 3, 4, 5, 6)
    }
    bindings = tiny_sweep.bindings(inputs)
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes={"length": lengths}, bindings=bindings)
    session = tiny_sweep.session(file, tmp_path)
    runners = [_start(session, tmp_path) for _ in range(2)]
    for process in runners:
        # Each waits for what the other has in work, and tells of all.
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 and output.count("tiny length=") == 6
    rows = Table(tmp_path).read()
    assert sorted(row["cell"] for row in rows) == [f"length={n}" for n in lengths]
    starts = [path.read_text().count("=== ") for path in tmp_path.glob("logs/*.log")]
    assert sum(starts) == 6 and _are_free(session)


class _Process:
    """A worker that has ended."""

    def __init__(self, exitcode):
        self.exitcode = exitcode

    def is_alive(self):
        return False


def _runner_of(session, report, monkeypatch, *, exit_code, key=""):
    """A runner whose workers end at once, with a cell in their hands."""
    subject = runner._Runner(session, 1, report)
    in_hand = types.SimpleNamespace(value=key.encode())
    monkeypatch.setattr(
        subject, "_start", lambda: subject._workers.update({_Process(exit_code): in_hand})
    )
    return subject


def test_a_cell_that_kills_its_workers_fails_in_every_sweep_that_has_it(
    inputs, tmp_path, monkeypatch
):
    axes = {"length": {n: {"command": "count", "bindings": {"PROMPT_LENGTH": n}} for n in (1, 2)}}
    files = [
        tiny_sweep.write(
            tmp_path / f"{name}.gin", name=name, axes=axes, bindings=tiny_sweep.bindings(inputs)
        )
        for name in ("one", "two")
    ]
    session = tiny_sweep.session(files, tmp_path)
    assert len({cell.key for cell in session.cells}) == 2
    key = session.cells[0].key
    lines = []
    subject = _runner_of(session, lines.append, monkeypatch, exit_code=-9, key=key)
    # The other cell is still to be run.
    assert all(subject.goes_on() for _ in range(runner.MAX_TRIES + 1))
    rows = Table(tmp_path).read()
    assert [(row["sweep"], row["status"]) for row in rows] == [("one", "failed"), ("two", "failed")]
    for row, line in zip(rows, lines, strict=True):
        assert row["key"] == key and row["error"] in line
        assert "-9" in row["error"] and "3 times" in row["error"]


def test_workers_that_never_start_are_an_error(inputs, tmp_path, monkeypatch):
    axes = {"length": {1: {"command": "count"}}}
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    session = tiny_sweep.session(file, tmp_path)
    subject = _runner_of(session, print, monkeypatch, exit_code=1)
    with pytest.raises(ValueError, match="workers.log"):
        for _ in range(runner.MAX_TRIES + 1):
            subject.goes_on()


def test_workers_that_were_told_to_end_are_replaced_as_long_as_cells_get_finished(
    inputs, tmp_path, monkeypatch
):
    axes = {"length": {n: {"command": "count", "bindings": {"PROMPT_LENGTH": n}} for n in (1, 2)}}
    file = tiny_sweep.write(tmp_path / "tiny.gin", axes=axes, bindings=tiny_sweep.bindings(inputs))
    session = tiny_sweep.session(file, tmp_path)
    subject = _runner_of(session, print, monkeypatch, exit_code=143)
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
    session = tiny_sweep.session(file, tmp_path)
    process = _start(session, tmp_path, RAY_RUNNER)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    rows = {row["axes"]["start"]: row for row in Table(tmp_path).read()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "sound": "done",
        "counted": "done",
        "missing": "failed",
    }
    assert rows["sound"]["steps"] == 4 and "No checkpoint at" in rows["missing"]["error"]
    assert output.count("tiny start=") == 3 and _are_free(session)
    assert (tmp_path / "logs" / f"{rows['missing']['key']}.log").exists()
