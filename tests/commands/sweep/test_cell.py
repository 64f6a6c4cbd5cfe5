"""Real cells of a tiny sweep, run in this process: their rows, their failures, and what other sweeps take from them."""

import json
import math
import pathlib
import shutil

import numpy as np
import pytest
from clu import metric_writers

from prompt_tuning import evaluate
from prompt_tuning.commands.sweep import cell as cells
from prompt_tuning.commands.sweep import overview, progress, worker
from prompt_tuning.commands.sweep.results import Table
from prompt_tuning.config.flags import tracker_bindings
from prompt_tuning.training import trackers
from tests import tiny_run
from tests.commands.sweep import tiny_sweep

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
TASK = "taskless_super_glue_cb_v102"
# What a tracker is told by the cells of `finished`.
TRACKED = []
# Scores the same task again, with the program that is compiled already.
AGAIN = {"again": {"bindings": {"EVALUATOR_NUM_EXAMPLES": 4}}}


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    """A checkpoint that is not there yet."""
    return tmp_path_factory.mktemp("later") / f"checkpoint_{tiny_run.STEP}"


def _prompt(**more):
    return {"gin_files": tiny_sweep.TRAIN, **more}


def _write(path, inputs, later, **parameters):
    """A sweep of a prompt, of two whose checkpoint is missing, and of a model that is only counted."""
    late = {"INITIAL_CHECKPOINT_PATH": str(later)}
    methods = {
        "prompt": _prompt(evaluations=AGAIN),
        "count": _prompt(command="count"),
        "late": _prompt(bindings=late),
        "as late": _prompt(bindings={**late, "RANDOM_SEED": 1}),
    }
    axes = {"size": {"tiny": {"gin_files": [tiny_sweep.MODEL]}}, "method": methods}
    common = {"gin_files": [], "axes": axes, "bindings": tiny_sweep.bindings(inputs)}
    return tiny_sweep.write(path, **{**common, **parameters})


@pytest.fixture(scope="module")
def finished(inputs, later, tmp_path_factory):
    """The folder after one start."""
    directory = tmp_path_factory.mktemp("sweep")
    file = _write(directory / "tiny.gin", inputs, later)

    def start(tracker, run_id, name, params, config_text):
        assert run_id is None and "RANDOM_SEED" in config_text
        TRACKED.append({"name": name, "group": tracker.group, "params": params, "log": []})
        return trackers.TrackedRun("a", lambda *row: TRACKED[-1]["log"].append(row), print)

    with pytest.MonkeyPatch.context() as patch:
        # A package that is there.
        patch.setattr(trackers.MLflow, "package", "json")
        patch.setattr(trackers.MLflow, "start", start)
        flags = tracker_bindings("mlflow")
        assert worker.run_cells(tiny_sweep.session(file, directory, flags=flags)) == 4
    return directory


def _rows(directory, **axes):
    rows = Table(directory).read()
    return [row for row in rows if axes.items() <= row["axes"].items()]


def test_a_trained_cell_has_the_score_of_its_best_checkpoint(finished):
    (row,) = _rows(finished, method="prompt")
    assert row["cell"] == "size=tiny,method=prompt"
    assert (row["status"], row["error"], row["steps"]) == ("done", None, 4)
    assert (row["sweep"], row["scale"], row["device"]) == ("tiny", None, "8 x cpu")
    assert (row["trainable_params"], row["total_params"]) == (4 * 32, 41_568)
    lines = (pathlib.Path(row["model_dir"]) / f"inference_eval/{TASK}-metrics.jsonl").read_text()
    measured = {m.pop("step"): m for m in map(json.loads, lines.splitlines())}
    scores = {step: np.mean(list(metrics.values())) for step, metrics in measured.items()}
    assert row["curve"] == [[step, pytest.approx(scores[step])] for step in (2, 4)]
    assert row["score"] == pytest.approx(max(scores.values()))
    assert row["best_step"] == (2 if scores[2] >= scores[4] else 4)
    assert row["metrics"] == measured[row["best_step"]]
    assert set(row["evaluations"]) == {"again"}
    assert set(row["evaluations"]["again"]) == set(row["metrics"])
    assert row["command"].startswith("prompt-tuning train --gin_file=")
    assert 0 < row["train_seconds"] < row["seconds"]
    assert row["update_bytes"] > 4 * row["total_params"]
    assert "4/4" in pathlib.Path(row["log"]).read_text()


def test_a_tracker_gets_each_training_under_the_name_of_the_sweep_and_with_its_axes(finished):
    (row,) = _rows(finished, method="prompt")
    (tracked,) = TRACKED
    assert (tracked["group"], tracked["name"]) == ("tiny", "size=tiny,method=prompt")
    assert tracked["params"]["axes/method"] == "prompt"
    assert {"seed", "frozen_digest", "config_digest", "made_from/optimizer/decay_rate"} <= set(
        tracked["params"]
    )
    steps = {step: scalars for step, scalars in tracked["log"] if "best/step" in scalars}
    assert list(steps) == [2, 4]
    assert steps[4]["best/step"] == row["best_step"]
    assert steps[4]["best/score"] == pytest.approx(row["score"])
    assert f"inference_eval/{TASK}/accuracy" in steps[4]
    losses = [scalars["train/loss"] for _, scalars in tracked["log"] if "train/loss" in scalars]
    assert len(losses) == 2 and np.isfinite(losses).all()


def test_parameters_are_counted_without_a_run(finished):
    (counted,) = _rows(finished, method="count")
    assert counted["cell"] == "size=tiny,method=count"
    assert (counted["trainable_params"], counted["total_params"]) == (4 * 32, 41_568)
    assert counted["status"] == "done" and counted["score"] is None


def test_a_failed_cell_stops_no_other_and_runs_again_on_request(finished, inputs, later):
    file = str(finished / "tiny.gin")
    failed = [row for row in Table(finished).read() if "late" in row["cell"]]
    assert [row["status"] for row in failed] == ["failed", "failed"]
    assert "No checkpoint at" in failed[0]["error"]
    assert "Traceback" in pathlib.Path(failed[0]["log"]).read_text()
    again = tiny_sweep.session(file, finished)
    assert worker.run_cells(again) == 0
    text = overview.text(again, Table(finished).read(), jobs=2)
    assert text.splitlines()[1].split() == ["tiny", "4", "2", "2", "0", "0"]
    assert "No checkpoint at" in text and failed[0]["log"] in text and "--retry_failed" in text

    # The first fails again, and is not tried a third time; what the second lacked is there by now.
    retried = tiny_sweep.session(file, finished, retry_failed=True)
    progress.record(retried, retried.cells[-2], {**failed[0], "error": "again"})
    shutil.copytree(inputs.checkpoint, later)
    assert worker.run_cells(retried) == 1
    statuses = [row["status"] for row in _rows(finished, method="late")]
    assert statuses == ["failed", "failed"]
    assert [row["status"] for row in _rows(finished, method="as late")] == ["failed", "done"]
    # Weights that were not there when a cell got its key, and are there now, are other weights.
    states = progress.states(tiny_sweep.session(file, finished), Table(finished).read())
    assert {state for cell, state in states if "late" not in cell.label} == {"done"}


def test_another_sweep_takes_what_is_done_and_runs_nothing(finished, inputs, later, tmp_path):
    file = _write(tmp_path / "other.gin", inputs, later, name="other")
    tiny_sweep.session(file, finished)
    rows = Table(finished).read()
    copies = [row for row in rows if row["sweep"] == "other" and "late" not in row["cell"]]
    assert [row["cell"] for row in copies] == ["size=tiny,method=prompt", "size=tiny,method=count"]
    originals = {row["key"]: row for row in rows if row["sweep"] == "tiny"}
    for row in copies:
        original = originals[row["key"]]
        assert row["sweep_command"] == f"prompt-tuning sweep {file}"
        own = {name: original[name] for name in ("sweep", "sweep_command")}
        assert {**row, **own} == original


@pytest.mark.slow
def test_untuned_models_are_scored_and_prompts_of_a_group_vote(inputs, tmp_path):
    frozen = {"CHECKPOINT_PATH": str(inputs.checkpoint), "PROMPT": None}
    frozen["utils.DatasetConfig.split"] = "validation"
    methods = {
        "prompt": _prompt(),
        "frozen": {
            "command": "eval",
            "gin_files": tiny_sweep.EVAL,
            "bindings": frozen,
            "evaluations": AGAIN,
        },
    }
    file = tiny_sweep.write(
        tmp_path / "tiny.gin",
        gin_files=[],
        axes={
            "size": {"tiny": {"gin_files": [tiny_sweep.MODEL]}},
            "method": methods,
            "seed": tiny_sweep.seeds(0, 1),
        },
        bindings=tiny_sweep.bindings(inputs),
        ensemble_over="seed",
    )
    assert worker.run_cells(tiny_sweep.session(file, tmp_path)) == 4
    (untuned,) = _rows(tmp_path, method="frozen")
    assert (untuned["status"], untuned["axes"]["seed"]) == ("done", "0")
    assert untuned["score"] == pytest.approx(np.mean(list(untuned["metrics"].values())))
    assert untuned["trainable_params"] == 0 and untuned["best_step"] is None
    assert set(untuned["evaluations"]["again"]) == set(untuned["metrics"])
    (vote,) = _rows(tmp_path, seed="ensemble")
    assert vote["status"] == "done" and vote["score"] == vote["metrics"]["ensemble"]
    scores = [r["score"] for r in _rows(tmp_path, method="prompt") if r is not vote][:2]
    assert vote["metrics"]["average"] == pytest.approx(np.mean(scores))
    assert vote["metrics"]["best"] == pytest.approx(max(scores))


@pytest.mark.slow
def test_model_tuning_leaves_no_whole_models(inputs, tmp_path, monkeypatch):
    bindings = tiny_sweep.bindings(inputs, TRAIN_STEPS_RELATIVE=2)
    bindings |= {"PROMPT": None, "TRAINABLE_REGEX": [".*"]}
    file = tiny_sweep.write(
        tmp_path / "model.gin",
        axes={"seed": tiny_sweep.seeds(0)},
        bindings=bindings,
        evaluations=AGAIN,
    )
    session = tiny_sweep.session(file, tmp_path)
    seen = []
    original = evaluate.evaluate

    def fails_once(**kwargs):
        seen.append(kwargs["restore_checkpoint_cfg"].path)
        if len(seen) == 1:
            raise OSError("the bucket is away")
        return original(**kwargs)

    monkeypatch.setattr(evaluate, "evaluate", fails_once)
    assert worker.run_cells(session) == 1
    (row,) = Table(tmp_path).read()
    run_dir = pathlib.Path(row["model_dir"])
    # What was trained is still there, and is not trained again.
    assert row["status"] == "failed" and (run_dir / "checkpoint_2").is_dir()
    assert worker.run_cells(tiny_sweep.session(file, tmp_path, retry_failed=True)) == 1
    (_, row) = Table(tmp_path).read()
    assert "| 0/2 [" not in pathlib.Path(row["log"]).read_text().split("=== ")[2]
    assert row["status"] == "done" and row["trainable_params"] == row["total_params"] == 41_440
    assert seen == [f"{run_dir}/checkpoint_2"] * 2
    assert not list(run_dir.glob("checkpoint_*")) and (run_dir / "config.gin").exists()


def test_updates_that_were_made_twice_are_timed_once(tmp_path):
    for steps, rate in (((10, 20, 30, 40), 1.0), ((30, 40, 50), 2.0)):
        writer = metric_writers.SummaryWriter(str(tmp_path / "train"))
        for step in steps:
            writer.write_scalars(step, {"timing/steps_per_second": rate})
        writer.close()
    assert cells._costs(str(tmp_path)) == {
        "train_seconds": 20 / 1.0 + 30 / 2.0,
        "update_bytes": None,
    }


def test_a_score_needs_a_number():
    assert cells._score({"task": {"accuracy": math.nan}}) is None
    assert cells._score({}) is None
    assert cells._score({"a": {"x": 1.0, "y": 3.0}, "b": {"z": 4.0}}) == 3.0
