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

from prompt_tuning.launch import commands, gcluster, gke_jobset, preflight
from prompt_tuning.launch.programs import read_program
from tests.helpers import GOLDEN, REPO
from tests.launch import stand_ins

_CLUSTER = (
    *("--project=my-project", "--name=xxl", "--spot", "--location=us-east5"),
    *("--cluster=my-cluster", "--image=my-registry/image"),
)
LAUNCHES = {
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
    ("program", "message"),
    [
        ((), "The launcher was given nothing to run: got ''"),
        (("train", "--gin_file=a.gin"), "MODEL_DIR would be lost with the machine: got None"),
        (("train", "--gin.MODEL_DIR='/run'"), "got '/run', expected a folder in a bucket"),
        (("eval", "--gin.MODEL_DIR='gs://b/r'"), "EVAL_OUTPUT_DIR would be lost"),
    ],
)
def test_nothing_is_spent_on_a_mistake(program, message, capsys):
    module, flags = LAUNCHES["gke_jobset"]
    assert module.main([*flags, "--", *program]) == 2
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


def test_gcluster_says_that_the_name_is_too_long(capsys):
    flags = [*_CLUSTER, "--topology=v5e:2x4", f"--name={'x' * 29}", "--dry_run", "--"]
    assert gcluster.main([*flags, "train", "--gin.MODEL_DIR='gs://b/r'"]) == 2
    assert "at most 28 characters" in capsys.readouterr().err
