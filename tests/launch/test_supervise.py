"""A launcher from its checks to the removal of the machine; the cloud is a folder and a stand-in for gcloud."""

import json
import sys

import pytest

from prompt_tuning.launch import compute_engine, machine, queued_resources, supervise, tpu_vm
from prompt_tuning.run import preemption
from tests.launch import stand_ins

_FLAGS = ("--project=my-project", "--name=xxl", "--spot")
PLACES = {
    "tpu_vm": (tpu_vm, ("--zone=us-west4-a", "--topology=v5e:2x4"), "READY", "PREEMPTED"),
    "queued_resources": (
        queued_resources,
        ("--zone=us-central2-b", "--topology=v4:2x2x1"),
        "ACTIVE",
        "SUSPENDED",
    ),
    "compute_engine": (
        compute_engine,
        ("--zone=us-east5-a", "--topology=v6e:2x4"),
        "RUNNING",
        "TERMINATED",
    ),
}


class Cloud:
    """The stand-in cloud and what it saw."""

    def __init__(self, folder):
        self.folder = folder

    def endings(self, *codes):
        (self.folder / "endings").write_text("\n".join(map(str, codes)) + "\n")

    def refuse(self, *creations):
        """Lets these creations, counted from 0 and from now, fail for want of capacity."""
        (self.folder / "creations").write_text("0")
        (self.folder / "refused").write_text(" ".join(map(str, creations)))

    def verbs(self):
        """What was created and removed, in order."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        calls = [json.loads(line) for line in lines]
        found = [next((v for v in ("create", "delete") if v in call), None) for call in calls]
        return [verb for verb in found if verb]

    def programs(self):
        return stand_ins.programs(self.folder / "record")


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    stand_ins.install_gcloud(tmp_path / "bin")
    stand_ins.install(tmp_path / "bin", uv=stand_ins.UV, python=stand_ins.PYTHON)
    stand_ins.install(tmp_path / "made", prompt_tuning=stand_ins.PROMPT_TUNING)
    for name, value in {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "CLOUD": str(tmp_path),
        "RECORD": str(tmp_path / "record"),
        "ENDINGS": str(tmp_path / "endings"),
        "UV_RECORD": str(tmp_path / "uv"),
        "PROMPT_TUNING_STAND_IN": str(tmp_path / "made/prompt-tuning"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setattr(supervise, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(supervise, "_CREATE_SECONDS", 0.05)
    monkeypatch.setattr(machine.importlib.metadata, "version", lambda name: "0.1.0")
    return Cloud(tmp_path)


def _launch(place, monkeypatch, *more):
    module, flags, up, down = PLACES[place]
    monkeypatch.setenv("UP", up)
    monkeypatch.setenv("DOWN", down)
    return module.main([*_FLAGS, *flags, *more, "--", *stand_ins.AWKWARD])


@pytest.mark.parametrize(
    "place",
    [pytest.param(name, marks=[] if name == "tpu_vm" else pytest.mark.slow) for name in PLACES],
)
def test_a_run_survives_crash_notice_and_loss_of_the_machine(place, cloud, monkeypatch):
    cloud.endings(134, preemption.EXIT_CODE, "taken", 1, 0)
    assert _launch(place, monkeypatch) == 0
    assert cloud.programs() == [list(stand_ins.AWKWARD)] * 5
    # A machine that was taken away is removed, too: its disk, or its place in the queue, would stay.
    assert cloud.verbs() == ["create", "delete", "create", "delete"]
    assert not (cloud.folder / "machine").exists()


def test_a_run_that_fails_costs_nothing_afterwards(cloud, monkeypatch, capfd):
    cloud.endings(2)
    assert _launch("tpu_vm", monkeypatch) == 2
    assert cloud.verbs() == ["create", "delete"]
    assert "ended with exit code 2" in capfd.readouterr().out


def test_capacity_that_was_lost_is_waited_for_and_capacity_that_never_was_is_not(
    cloud, monkeypatch
):
    cloud.endings("taken", 0)
    cloud.refuse(1, 2)
    assert _launch("tpu_vm", monkeypatch) == 0
    assert cloud.verbs() == ["create", "delete"] * 4
    assert len(cloud.programs()) == 2
    (cloud.folder / "calls.jsonl").unlink()
    cloud.refuse(0)
    assert _launch("tpu_vm", monkeypatch) == 2
    assert cloud.verbs() == ["create", "delete"]


def test_a_run_that_never_stays_is_given_up(cloud, monkeypatch, capsys):
    monkeypatch.setattr(supervise, "_FAILED_QUESTIONS", 2)
    monkeypatch.setattr(supervise, "_follow", lambda machine, worker: None)
    cloud.endings(*[0] * 9)
    assert _launch("tpu_vm", monkeypatch) == 2
    assert "the run does not stay on it: got '3 starts'" in capsys.readouterr().err
    assert cloud.verbs() == ["create", "delete"]


def test_keep_leaves_the_machine_and_says_what_removes_it(cloud, monkeypatch, capsys):
    cloud.endings(0, 0)
    assert _launch("tpu_vm", monkeypatch, "--keep") == 0
    assert cloud.verbs() == ["create"]
    shown = capsys.readouterr().out
    assert "costs. To remove xxl:\ngcloud compute tpus tpu-vm delete xxl" in shown
    # Launched again, it takes the machine that is there, on which nothing has to be installed.
    assert _launch("tpu_vm", monkeypatch) == 0
    assert cloud.verbs() == ["create", "delete"]
    assert len((cloud.folder / "uv").read_text().splitlines()) == 2


def test_a_launcher_that_fails_removes_what_it_created(cloud, monkeypatch, capsys):
    stand_ins.install(cloud.folder / "bin", uv="#!/bin/sh\nexit 7\n")
    assert _launch("tpu_vm", monkeypatch) == 2
    assert cloud.verbs() == ["create", "delete"]
    assert 'A command of the launcher failed: got "exit code 7 of' in capsys.readouterr().err


def test_nothing_is_created_where_it_does_not_fit(cloud, monkeypatch, capsys):
    monkeypatch.setenv("FITS", "false")
    assert _launch("tpu_vm", monkeypatch) == 2
    assert not (cloud.folder / "calls.jsonl").exists()
    assert 'expected "fits": true' in capsys.readouterr().err
    cloud.endings(0)
    assert _launch("tpu_vm", monkeypatch, "--skip_plan") == 0


def test_a_machine_that_is_up_but_never_answers_is_given_up(cloud, monkeypatch, capsys):
    """Its ssh fails while its state stays READY."""
    asked = []
    original = tpu_vm.TpuVm.ssh

    def ssh(self, remote, worker, why):
        command = original(self, remote, worker, why)
        if "run.sh status" in remote or "run.sh follow" in remote:
            asked.append(remote)
            return supervise.Command(("false",), why)
        return command

    monkeypatch.setattr(tpu_vm.TpuVm, "ssh", ssh)
    monkeypatch.setattr(supervise, "_POLL_SECONDS", 0.0)
    cloud.endings(0)
    assert _launch("tpu_vm", monkeypatch) == 2
    assert "The machine is up and does not answer" in capsys.readouterr().err
    assert len(asked) == 2 * (supervise._FAILED_QUESTIONS + 1)
    assert cloud.verbs() == ["create", "delete"]


def test_ctrl_c_leaves_the_run_alone(cloud, monkeypatch, capsys):
    def interrupted(machine, worker):
        raise KeyboardInterrupt

    monkeypatch.setattr(supervise, "_follow", interrupted)
    cloud.endings(0)
    assert _launch("tpu_vm", monkeypatch) == 130
    assert cloud.verbs() == ["create"]
    assert "The run goes on without this launcher" in capsys.readouterr().out
