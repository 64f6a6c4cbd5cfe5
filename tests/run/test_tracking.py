"""The tracked run of a MODEL_DIR: which one it is, one that is out of reach, and a run that is killed."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from etils import epath

from prompt_tuning import cli
from prompt_tuning.errors import ConfigError
from prompt_tuning.run.tracking import open_tracked
from prompt_tuning.training import trackers
from tests.helpers import GOLDEN, REPO
from tests.training import test_trackers

place = test_trackers.place


@dataclasses.dataclass(frozen=True)
class Fake(trackers.Tracker):
    """A tracker that is asked for runs, and may be out of reach."""

    package = "json"
    asked: list = dataclasses.field(default_factory=list)
    reachable: bool = True

    def start(self, run_id, name, params, config_text):
        self.asked.append((run_id, name, params))
        if not self.reachable:
            raise ConnectionError("no route to host")
        return trackers.TrackedRun(run_id or "a1", print, print)


def test_a_run_that_goes_on_is_the_tracked_run_that_it_began(tmp_path, caplog):
    folder, fake = epath.Path(tmp_path), Fake(labels={"size": "mini"})
    for _ in range(2):
        tracked = open_tracked(fake, folder, {"model": {"emb_dim": 8}}, "")
        assert tracked is not None and tracked.run_id == "a1"
    params = {"model/emb_dim": 8, "axes/size": "mini"}
    assert fake.asked == [(None, "size=mini", params), ("a1", "size=mini", params)]
    # One that cannot be gone on with does not stop the run.
    away = dataclasses.replace(fake, reachable=False)
    assert open_tracked(away, folder, {}, "") is None
    assert "cannot go on" in caplog.text and "no route to host" in caplog.text
    # Nor does a damaged file.
    (folder / "trackers.json").write_text("{")
    assert open_tracked(fake, folder, {}, "") is None
    assert len(fake.asked) == 3


def test_a_first_start_that_fails_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"json cannot start a run: got 'ConnectionError: no"):
        open_tracked(Fake(reachable=False), epath.Path(tmp_path), {}, "")
    assert not list(tmp_path.iterdir())


def test_other_processes_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    assert open_tracked(Fake(), epath.Path(tmp_path), {}, "") is None


def _steps(run):
    """Steps of the checkpoints in a run's folder."""
    found = (re.fullmatch(r"checkpoint_(\d+)", path.name) for path in run.glob("checkpoint_*"))
    return [int(match[1]) for match in found if match]


def _offline_bytes(place):
    """Bytes that W&B has written below a folder."""
    return sum(path.stat().st_size for path in place.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_a_killed_run_and_the_one_that_goes_on_are_one(place, tmp_path):
    pytest.importorskip("wandb")
    before, run = tmp_path / "before", tmp_path / "before" / "run"
    shutil.copytree(GOLDEN / "before_the_move", before)
    config = tmp_path / "config.gin"
    text = (run / "config.gin").read_text().replace("/tmp/before_the_move", str(before))
    config.write_text(text)

    def argv(steps, period):
        return [
            "train",
            f"--gin_file={config}",
            "--tracker=wandb",
            f"--gin.TRAIN_STEPS_RELATIVE={steps}",
            f"--gin.EVAL_PERIOD={period}",
        ]

    first = subprocess.Popen(
        [sys.executable, "-m", "prompt_tuning", *argv(100_000, 2)],
        cwd=REPO,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 300
    # W&B writes whole blocks of 32 KiB; what it has not written when it is killed is lost.
    while max(_steps(run), default=0) < 6 or _offline_bytes(place) < 2**15:
        assert first.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    last = max(_steps(run))
    ids = json.loads((run / "trackers.json").read_text())
    assert cli.main(argv(last + 2, 2)) == 0
    assert json.loads((run / "trackers.json").read_text()) == ids

    found = test_trackers.read_wandb(place)
    assert list(found) == [ids["wandb"]]
    assert len(list(place.glob("wandb/offline-run-*"))) == 2
    tracked = found[ids["wandb"]]
    assert tracked["params"]["seed"] == 7 and tracked["params"]["frozen_digest"]
    assert "RANDOM_SEED = 7" in tracked["config.gin"]
    scores = {s: x for s, name, x in tracked["history"] if name.startswith("inference_eval/")}
    assert {2, last + 2} <= set(scores) and max(scores) == last + 2
    best = json.loads((run / "best.json").read_text())
    (entry,) = (value for value in best.values() if isinstance(value, dict))
    recorded = [x for _, name, x in tracked["history"] if name == "best/step"]
    assert recorded[-1] == entry["step"]
    assert any(name == "train/loss" and s == last + 2 for s, name, _ in tracked["history"])
