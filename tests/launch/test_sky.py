"""SkyPilot's tasks: what they ask for, what they run word by word, and that SkyPilot's own parser takes them."""

import json
import os
import shlex
import subprocess
import sys

import pytest
import yaml

from prompt_tuning.commands.plan.generations import accelerator_of, generation_of
from prompt_tuning.run import preemption
from tests.helpers import REPO
from tests.launch import stand_ins

TASKS = ("job", "serve")
# A Python that has SkyPilot: its pins of click and uvicorn are not those of constraints.txt.
SKY_PYTHON = os.environ.get("SKY_PYTHON", sys.executable)
ENVS = {"COMMAND": shlex.join(("prompt-tuning", *stand_ins.AWKWARD)), "API_KEY": "a $key"}
_HAS_SKYPILOT = """
import importlib.metadata
assert tuple(map(int, importlib.metadata.version("skypilot").split(".")[:2])) >= (0, 14)
"""
_PARSE = """
import json, sys, sky, yaml
from sky.skylet import log_lib
file, envs = sys.argv[1], json.loads(sys.argv[2])
with open(file) as opened:
    config = yaml.safe_load(opened)
secrets = {name: envs[name] for name in config.get("secrets", ())}
task = sky.Task.from_yaml_config(config, {"COMMAND": envs["COMMAND"]}, secrets)
print(json.dumps({
    "resources": [dict(
        accelerators=r.accelerators, args=r.accelerator_args, spot=r.use_spot, ports=r.ports,
        cloud=str(r.cloud), recovery=r.job_recovery) for r in task.resources],
    "probe": task.service and task.service.readiness_path,
    "extras": task.envs["EXTRAS"],
    "script": log_lib.make_task_bash_script(task.run, envs),
}))
"""


def _read(name):
    return yaml.safe_load((REPO / f"launch/sky/{name}.yaml").read_text(encoding="utf-8"))


def _words_run(script, tmp_path, **env):
    """The words that prompt-tuning gets from a script that runs in the folder of the checkout."""
    stand_ins.install(tmp_path / "sky_workdir/.venv/bin", prompt_tuning=stand_ins.PROMPT_TUNING)
    env |= {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "RECORD": str(tmp_path / "record")}
    folder = tmp_path / "sky_workdir"
    subprocess.run(["bash", "-c", script], env=env, cwd=folder, check=True)
    (words,) = stand_ins.programs(tmp_path / "record")
    return words


def _expected_words(name, tmp_path):
    serves = ("--host=0.0.0.0", "--port=8000", f"--api_key_file={tmp_path}/api_keys")
    return [*stand_ins.AWKWARD, *(serves if name == "serve" else ())]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_runs_the_command_as_it_was_typed(name, tmp_path):
    assert _words_run(_read(name)["run"], tmp_path, **ENVS) == _expected_words(name, tmp_path)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_asks_for_slices_by_their_names(name):
    found = {
        row["accelerators"]: row.get("accelerator_args")
        for row in _read(name)["resources"]["any_of"]
    }
    slices = {
        accelerator_of(slice_name): {"runtime_version": generation_of(slice_name).runtime_version}
        for slice_name in ("v5e:2x4", "v6e:2x4")
    }
    assert found == {**slices, "H100:1": None}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_skypilot_reads_a_task(name, tmp_path):
    """In a process of its own: to import it makes a folder in the home."""
    env = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    asked = subprocess.run([SKY_PYTHON, "-c", _HAS_SKYPILOT], capture_output=True)
    if asked.returncode:
        pytest.skip("no SkyPilot from 0.14 on: SKY_PYTHON=/path/to/python names one that has it")
    words = [SKY_PYTHON, "-c", _PARSE, str(REPO / f"launch/sky/{name}.yaml"), json.dumps(ENVS)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    accelerators = {key for row in found["resources"] for key in row["accelerators"]}
    assert accelerators == {"tpu-v5litepod-8", "tpu-v6e-8", "H100"}
    for row in found["resources"]:
        assert row["cloud"] == "GCP" and row["spot"] is (name == "job")
        if name == "job":
            assert preemption.EXIT_CODE in row["recovery"]["recover_on_exit_codes"]
        else:
            assert row["ports"] == ["8000"]
    assert found["extras"] == ("serve,hub" if name == "serve" else "hub")
    assert found["probe"] == ("/health" if name == "serve" else None)
    assert _words_run(found["script"], tmp_path) == _expected_words(name, tmp_path)
