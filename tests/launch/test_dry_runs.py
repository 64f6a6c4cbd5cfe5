"""What the launchers would run, word by word, with values that are hard to quote."""

import argparse
import difflib
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from prompt_tuning.launch import (
    commands,
    compute_engine,
    gcluster,
    gke_jobset,
    preflight,
    queued_resources,
    tpu_vm,
)
from prompt_tuning.launch.programs import read_program
from prompt_tuning.run import preemption
from tests.helpers import GOLDEN, REPO
from tests.launch import stand_ins

_VM = ("--project=my-project", "--name=xxl", "--spot")
_CLUSTER = (*_VM, "--location=us-east5", "--cluster=my-cluster", "--image=my-registry/image")
LAUNCHES = {
    "tpu_vm": (tpu_vm, (*_VM, "--zone=us-west4-a", "--topology=v5e:2x4")),
    "queued_resources": (
        queued_resources,
        (*_VM, "--zone=us-central2-b", "--topology=v4:2x2x2", "--create_flag=--network=my-network"),
    ),
    "compute_engine": (compute_engine, (*_VM, "--zone=us-east5-a", "--topology=v6e:2x4")),
    "compute_engine_slice": (
        compute_engine,
        (*_VM[:2], "--zone=us-central1-c", "--topology=tpu7x:2x2x2", "--ssh_flag=--internal-ip"),
    ),
    "gke_jobset": (
        gke_jobset,
        (*_CLUSTER, "--topology=v6e:4x4", "--service_account=trainer"),
    ),
    "gcluster": (gcluster, (*_CLUSTER, "--topology=tpu7x:2x2x1")),
}


def _dry_run(name, capsys, program=stand_ins.AWKWARD):
    module, flags = LAUNCHES[name]
    assert module.main([*flags, "--dry_run", "--", *program]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", LAUNCHES)
def test_dry_run_is_the_golden_one(name, capsys):
    home, python = str(pathlib.Path.home()), sys.executable
    shown = _dry_run(name, capsys)
    # Python first: in the default place, .venv, its path begins with the checkout's.
    for path, word in (
        (python, "PYTHON"),
        (str(REPO), "CHECKOUT"),
        (f"{home}/.cache", "HOME/.cache"),
    ):
        if shlex.quote(path) != path:
            # What the shell needs around a folder with a space is no part of the command.
            shown = re.sub(f"'({re.escape(path)}[^']*)'", r"\1", shown)
        shown = shown.replace(path, word)
    path = GOLDEN / "launch" / f"{name}.sh"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(shown, encoding="utf-8")
    wanted = path.read_text(encoding="utf-8")
    assert shown == wanted, "\n".join(
        difflib.unified_diff(wanted.splitlines(), shown.splitlines(), lineterm="")
    )


@pytest.mark.parametrize("name", LAUNCHES)
def test_bash_runs_what_a_dry_run_prints(name, capsys, monkeypatch, tmp_path):
    """The output is a script; running it calls the same programs with the same words as the launcher would."""
    meant = []
    show = commands.show

    def remember(shown):
        meant.extend(shown := list(shown))
        show(shown)

    monkeypatch.setattr(commands, "show", remember)
    recorder = f'#!/bin/bash\nprintf "%s\\0" "$(basename "$0")" "$@" $\'\\1\' >>{tmp_path}/words\n'
    stand_ins.install(tmp_path / "bin", gcloud=recorder, kubectl=recorder, gcluster=recorder)
    stand_ins.install(tmp_path / "bin", python=recorder)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    script = _dry_run(name, capsys)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    subprocess.run(["bash", "-eu"], input=script, text=True, env=env, check=True)
    found = stand_ins.programs(tmp_path / "words")
    assert len(found) > 5
    assert found == [[pathlib.Path(c.argv[0]).name, *c.argv[1:]] for c in meant]


def _words_of(script, start):
    """The words of the first command of a dry run that begins with `start`."""
    reader = shlex.shlex(script[script.index(f"\n{start}") + 1 :], posix=True)
    reader.whitespace_split, reader.commenters = True, ""
    reader.whitespace = " \n"
    return list(reader)


@pytest.mark.parametrize("name", ["tpu_vm", "queued_resources", "compute_engine"])
def test_ssh_hands_the_words_on(name, capsys, tmp_path):
    """Through gcloud's split at spaces, ssh's join and the other side's shell."""
    script = _dry_run(name, capsys)
    words = _words_of(script[script.index("# Starts the run") :], "gcloud")
    command = next(w for w in words if w.startswith("--command="))
    remote = " ".join(command.removeprefix("--command=").split(" "))
    folder = tmp_path / "prompt_tuning_launch"
    stand_ins.install(folder, run_sh='printf "%s\\0" "$@" $\'\\1\' >"$RECORD"')
    (folder / "run-sh").rename(folder / "run.sh")
    env = {"PATH": os.environ["PATH"], "RECORD": str(tmp_path / "record"), "HOME": "/wrong"}
    subprocess.run(["bash", "-c", remote], cwd=tmp_path, env=env, check=True)
    started = ["start", "3", str(preemption.EXIT_CODE), *stand_ins.AWKWARD]
    assert stand_ins.programs(tmp_path / "record") == [started]


@pytest.mark.parametrize("name", ["gke_jobset", "gcluster"])
def test_a_container_gets_the_words(name, monkeypatch, tmp_path):
    """Through Kubernetes' variables and, with gcluster, a shell."""
    program = read_program(stand_ins.AWKWARD)
    variables = {"HOME": "/wrong"}
    if name == "gke_jobset":
        flags = argparse.Namespace(
            **{"topology": "v5e:2x4", "name": "x", "image": "i", "spot": False, "max_crashes": 3},
            **{"project": "p", "location": "l", "cluster": "c", "service_account": None},
        )
        made = gke_jobset.JobSet(flags, program).manifest()
        pod = made["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        given = [*container["command"], *container["args"]]
    else:
        seen = []
        monkeypatch.setattr(commands, "show", lambda shown: seen.extend(shown))
        module, flags = LAUNCHES[name]
        assert module.main([*flags, "--dry_run", "--", *stand_ins.AWKWARD]) == 0
        submit = next(c for c in seen if c.argv[:3] == ("gcluster", "job", "submit"))
        given = ["/bin/bash", "-c", submit.argv[-1].removeprefix("--command=")]
    stand_ins.install(tmp_path / "bin", prompt_tuning=stand_ins.PROMPT_TUNING)
    env = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "RECORD": str(tmp_path / "record"), **variables}
    words = [stand_ins.expand_like_kubernetes(word, variables) for word in given]
    subprocess.run(words, env=env, check=True)
    assert stand_ins.programs(tmp_path / "record") == [list(stand_ins.AWKWARD)]


@pytest.mark.parametrize(
    ("flags", "program", "message"),
    [
        ((), (), "The launcher was given nothing to run: got ''"),
        ((), ("train", "--gin_file=a.gin"), "MODEL_DIR would be lost with the machine: got None"),
        ((), ("train", "--gin.MODEL_DIR='/run'"), "got '/run', expected a folder in a bucket"),
        ((), ("eval", "--gin.MODEL_DIR='gs://b/r'"), "EVAL_OUTPUT_DIR would be lost"),
        (
            ("--package=/nowhere",),
            ("train", "--gin.MODEL_DIR='gs://b/r'"),
            "There is nothing to install on the machine: got '/nowhere'",
        ),
    ],
)
def test_nothing_is_spent_on_a_mistake(flags, program, message, capsys):
    module, own = LAUNCHES["tpu_vm"]
    assert module.main([*own, *flags, "--", *program]) == 2
    assert message in re.sub(r"\s+", " ", capsys.readouterr().err)


def test_the_last_output_folder_counts():
    words = ("train", "--gin.MODEL_DIR='/run'", "--gin_bindings=MODEL_DIR = 'gs://b/c/d'")
    program = read_program(words)
    assert (program.output_dir, program.bucket) == ("gs://b/c/d", "gs://b")


def test_the_plan_gets_the_gin_flags_alone():
    words = ("train", "--gin_file", "a.gin", "--gin.MODEL_DIR='gs://b/r'", "--tfds_data_dir", "d")
    more = ("--gin_bindings=A = 1", "--gin_search_paths=x", "--multiprocess_gpu")
    program = read_program([*words, *more])
    assert preflight.gin_flags(program) == [*words[1:4], *more[:2]]


def test_compute_engine_sends_older_tpus_elsewhere(capsys):
    flags = [*_VM, "--zone=z", "--topology=v4:2x2x1", "--dry_run", "--"]
    assert compute_engine.main([*flags, "train", "--gin.MODEL_DIR='gs://b/r'"]) == 2
    assert "use prompt_tuning.launch.tpu_vm" in capsys.readouterr().err


def test_gcluster_says_that_the_name_is_too_long(capsys):
    flags = [*_CLUSTER, "--topology=v5e:2x4", f"--name={'x' * 29}", "--dry_run", "--"]
    assert gcluster.main([*flags, "train", "--gin.MODEL_DIR='gs://b/r'"]) == 2
    assert "at most 28 characters" in capsys.readouterr().err
