"""A shard's files without a model: what resumes, what is refused, and who decides where processes are several."""

import json
import os
import socket
import subprocess
import sys

import pytest
from etils import epath

from prompt_tuning.data import content
from prompt_tuning.errors import ConfigError
from prompt_tuning.run.shard import Shard
from tests.helpers import REPO

SETTINGS = {"BATCH_SIZE": 8, "TASK_FEATURE_LENGTHS": {"inputs": 4}, "PROMPT_FILE": None}


def make_shard(folder, **changes):
    return Shard(epath.Path(folder), "task-predict.jsonl-00000-of-00001", {**SETTINGS, **changes})


def test_a_new_shard_has_no_chunks_and_resumes_after_the_last_one(tmp_path):
    shard = make_shard(tmp_path / "new")
    assert shard.open() == 0
    shard.write_chunk(0, ["a", "b"])
    shard.write_chunk(1, ["c"])
    assert make_shard(tmp_path / "new").open() == 2
    shard.finish(2)
    assert shard.final.read_text() == "a\nb\nc\n"
    record = content.unsealed(json.loads(shard.completed.read_text()))
    assert record == {**SETTINGS, "results (SHA-256)": content.of_bytes("a\nb\nc\n")}
    assert not shard.unfinished.exists() and make_shard(tmp_path / "new").open() is None


def test_a_chunk_behind_a_missing_one_does_not_count(tmp_path):
    shard = make_shard(tmp_path)
    shard.open()
    for number in range(3):
        shard.write_chunk(number, [str(number)])
    (shard.unfinished / "chunk00001").unlink()
    assert shard.open() == 1
    (shard.unfinished / "chunk00000").unlink()
    assert make_shard(tmp_path, BATCH_SIZE=16).open() == 0
    assert not (shard.unfinished / "chunk00002").exists(), "made with other settings"


@pytest.mark.parametrize("is_complete", [False, True])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"BATCH_SIZE": 16}, "another BATCH_SIZE: got 16, expected 8, as recorded"),
        ({"PROMPT_FILE": "/p.npy"}, "another PROMPT_FILE: got '/p.npy', expected None, as"),
        (
            {"TASK_FEATURE_LENGTHS": {"inputs": 5}},
            "another TASK_FEATURE_LENGTHS: got {'inputs': 5}",
        ),
        ({"new in this version": 1}, "another new in this version: got 1"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, text, is_complete):
    shard = make_shard(tmp_path)
    shard.open()
    shard.write_chunk(0, ["a"])
    if is_complete:
        shard.finish(1)
    with pytest.raises(ConfigError) as error:
        make_shard(tmp_path, **change).open()
    assert text in str(error.value)
    assert f"choose another INFER_OUTPUT_DIR, or delete {tmp_path}" in str(error.value)
    assert make_shard(tmp_path).open() == (None if is_complete else 1)


@pytest.mark.parametrize("record", ["", "{", "[]"])
def test_results_without_a_record_are_refused(tmp_path, record):
    shard = make_shard(tmp_path)
    shard.final.write_text("a\n")
    shard.completed.write_text(record)
    with pytest.raises(ConfigError, match="another BATCH_SIZE: got 8, expected None"):
        shard.open()


PROCESS = """
import pathlib, sys
import jax
from etils import epath
from prompt_tuning.errors import ConfigError
from prompt_tuning.run.shard import Shard

jax.config.update("jax_cpu_collectives_implementation", "gloo")
index = int(sys.argv[2])
jax.distributed.initialize(sys.argv[1], 2, index)
# Each process has a folder of its own: what the second one sees must not matter.
folder = epath.Path(sys.argv[3]) / str(index)
shard = Shard(folder, "x", {"A": 1})
answers = [shard.open()]
shard.write_chunk(0, ["a"])
answers.append(shard.open())
try:
    Shard(folder, "x", {"A": 2}).open()
except ConfigError as error:
    answers.append("another A" in str(error) or "process 0 reports" in str(error))
shard.finish(1)
answers.append(shard.open())
print("ANSWERS", answers, "FOLDER", folder.exists())
"""


@pytest.mark.slow
def test_process_0_decides_for_all(tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{server.getsockname()[1]}"
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(index), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": python_path, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    for index, process in enumerate(started):
        output = process.communicate(timeout=200)[0]
        assert f"ANSWERS [0, 1, True, None] FOLDER {index == 0}" in output, output[-2000:]
