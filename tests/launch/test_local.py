"""Processes on this machine: told where to find one another, ended together, started again, and none left behind."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.launch import local
from prompt_tuning.run.preemption import EXIT_CODE
from tests.helpers import REPO

# Stands for prompt-tuning: what it does is its first argument, in Python.
_PROGRAM = (sys.executable, "-u", "-c", "import os, sys, time; exec(sys.argv[1])")
_INDEX = "index = int(sys.argv[-1].split('=')[1]); "


@pytest.fixture
def run(monkeypatch):
    """Returns a function from the launcher's flags and what each process does to the launcher's exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(local, "PROGRAM", _PROGRAM)
    yield lambda *argv: local.main(argv)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_each_process_gets_the_command_unchanged_and_the_flags_to_join(run, capsys):
    awkward = "--gin.CLASS_LABELS=['it''s \"so\" $HOME', {'a b': 1}]"
    assert run("--processes=2", "--", "print(sys.argv[2:])", awkward) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in sorted(lines)] == ["[0] ", "[1] "]
    for index, line in enumerate(sorted(lines)):
        given = eval(line[4:])
        assert given[:2] == [awkward, "--multiprocess_gpu"]
        assert given[2].startswith("--coordinator_address=127.0.0.1:")
        assert given[3:] == ["--process_count=2", f"--process_index={index}"]
    assert len({line.split("127.0.0.1")[1].split("'")[0] for line in lines}) == 1


def test_one_process_is_not_told_to_join_and_gets_its_devices(run, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other")
    shown = "print(len(sys.argv), os.environ['XLA_FLAGS'], os.environ['JAX_PLATFORMS'])"
    assert run("--devices_per_process=4", "--", shown) == 0
    flags = "--xla_other --xla_force_host_platform_device_count=4"
    assert capsys.readouterr().out == f"[0] 2 {flags} cpu\n"


def test_the_others_are_killed_when_one_fails(run, monkeypatch):
    monkeypatch.setattr(local, "_GRACE", 0.2)
    began = time.monotonic()
    code = run("--processes=2", "--", f"{_INDEX} time.sleep(60) if index else sys.exit(5)")
    assert code == 5
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("codes", "expected"), [((134, 143), 143), ((143, 2), 2), ((0, 7), 7)])
def test_which_exit_code_counts(run, codes, expected):
    ends = f"{_INDEX} time.sleep(index * 0.3); sys.exit({codes}[index])"
    assert run("--processes=2", "--", ends) == expected


@pytest.mark.parametrize(
    ("code", "flags", "attempts"),
    [
        (EXIT_CODE, ["--restart", "--max_crashes=0"], 3),
        (-signal.SIGTERM, ["--restart", "--max_crashes=0"], 3),
        (EXIT_CODE, [], 1),
        (1, ["--restart", "--max_crashes=1"], 2),
        (2, ["--restart"], 1),
    ],
)
def test_what_is_started_again(run, tmp_path, capsys, code, flags, attempts):
    """The third attempt would end well."""
    log = tmp_path / "attempts"
    end = f"sys.exit({code})" if code > 0 else f"os.kill(os.getpid(), {-code})"
    program = (
        f"open({str(log)!r}, 'a').write('x'); n = os.path.getsize({str(log)!r});"
        f" sys.exit(0) if n == 3 else {end}"
    )
    assert run(*flags, "--", program) == (0 if attempts == 3 else code)
    assert log.stat().st_size == attempts
    assert capsys.readouterr().out.count("starting again") == attempts - 1


def _launch(*argv: str) -> subprocess.Popen[str]:
    """A launcher in a process of its own, with the stand-in program."""
    code = (
        "import sys; from prompt_tuning.launch import local;"
        f" local.PROGRAM = {_PROGRAM!r}; sys.exit(local.main(sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *argv],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )


def _pids(launcher: subprocess.Popen[str], count: int) -> list[int]:
    """The processes' numbers, which each prints."""
    assert launcher.stdout is not None
    return [int(launcher.stdout.readline().split()[1]) for _ in range(count)]


def _lives(pid: int) -> bool:
    status = pathlib.Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_a_signal_reaches_every_process_and_ends_the_launcher():
    saves = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143));"
        " print(os.getpid()); time.sleep(60)"
    )
    with _launch("--processes=2", "--restart", "--", saves) as launcher:
        pids = _pids(launcher, 2)
        launcher.send_signal(signal.SIGTERM)
        assert launcher.wait(timeout=30) == EXIT_CODE
    assert not any(_lives(pid) for pid in pids)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is asked to do it")
def test_a_killed_launcher_leaves_no_process():
    with _launch("--processes=2", "--", "print(os.getpid()); time.sleep(60)") as launcher:
        pids = _pids(launcher, 2)
        assert all(_lives(pid) for pid in pids)
        launcher.kill()
    deadline = time.monotonic() + 30
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("count", ["0", "-1", "1.5", ""])
def test_a_run_of_no_process_is_refused(count, capsys):
    with pytest.raises(SystemExit) as error:
        local.main([f"--processes={count}", "--", "train"])
    assert error.value.code == 2
    assert "not a whole number >= 1" in capsys.readouterr().err
