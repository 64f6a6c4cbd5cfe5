"""An output folder has one writer: others are refused by name, the dead are followed at once."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning.checkpoints import one_writer, paths
from prompt_tuning.errors import ConfigError
from tests.helpers import REPO

HOLD = """
import sys, time
from prompt_tuning.checkpoints import one_writer
with one_writer.holding(sys.argv[1], "MODEL_DIR"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_one_is_refused_by_the_name_of_the_first(tmp_path):
    folder = tmp_path / "deep" / "run"
    with one_writer.holding(folder, "MODEL_DIR"):
        with pytest.raises(ConfigError) as error:
            with one_writer.holding(folder, "MODEL_DIR"):
                pass
        with one_writer.holding(folder, "INFER_OUTPUT_DIR", "shard-1"):
            pass
    text = str(error.value)
    assert (
        f"MODEL_DIR {folder} is in the hands of another run: got 'process {os.getpid()} on " in text
    )
    assert f"kill {os.getpid()}" in text
    # Nobody wrote anything, so nothing is left.
    assert list(tmp_path.iterdir()) == []


def test_the_folder_stays_with_what_was_written(tmp_path):
    with pytest.raises(ValueError, match="stops"):
        with one_writer.holding(tmp_path / "run", "MODEL_DIR"):
            (tmp_path / "run" / "x").write_text("1")
            raise ValueError("stops")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["x"]
    with one_writer.holding(tmp_path / "run", "MODEL_DIR"):
        pass


@pytest.mark.slow
def test_a_run_that_was_killed_is_followed_at_once(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {holder.pid} on "):
        with one_writer.holding(tmp_path, "MODEL_DIR"):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert (tmp_path / one_writer.FILE).exists()
    began = time.monotonic()
    with one_writer.holding(tmp_path, "MODEL_DIR"):
        assert time.monotonic() - began < 1


@pytest.fixture
def store(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder that is taken for an object store, whose time goes quickly."""
    monkeypatch.setattr(paths, "in_object_store", lambda path: True)
    monkeypatch.setattr(one_writer, "_MARK_SECONDS", 0.05)
    monkeypatch.setattr(one_writer, "_STALE_SECONDS", 0.5)
    return tmp_path


def test_in_an_object_store_a_mark_that_changes_is_a_writer(store, monkeypatch):
    with one_writer.holding(store, "MODEL_DIR"):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on "):
            with one_writer.holding(store, "MODEL_DIR"):
                pass
    assert not list(store.iterdir())


def test_in_an_object_store_a_mark_that_stays_is_taken_over(store, monkeypatch):
    mark = one_writer._describe_self("left", 3)
    (store / one_writer.FILE).write_bytes(mark)
    began = time.monotonic()
    with one_writer.holding(store, "MODEL_DIR"):
        assert time.monotonic() - began >= 0.5
    # Of a process of this machine that is gone, it is known at once.
    (store / one_writer.FILE).write_bytes(mark)
    monkeypatch.setattr(one_writer, "_is_alive", lambda process: False)
    began = time.monotonic()
    with one_writer.holding(store, "MODEL_DIR"):
        assert time.monotonic() - began < 0.5
