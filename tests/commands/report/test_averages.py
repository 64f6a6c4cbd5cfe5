"""Averages on numbers small enough to check by hand."""

import math

import pytest

from prompt_tuning.commands.report import averages, rows
from tests.commands.report import rows_fixture


def _sweep(tmp_path, *cells):
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path, *cells))]).sweeps
    return sweep


def _row(score, *, method="prompt", task="a", seed: int | str = 0, **changed):
    axes = {"size": "pico", "method": method, "task": task, "seed": seed}
    return rows_fixture.row("figure_1", axes, **{"score": score, **changed})


def test_tasks_are_averaged_before_seeds(tmp_path):
    scores = {
        ("a", 0): 10.0,
        ("b", 0): 30.0,
        ("a", 1): 20.0,
        ("b", 1): 40.0,
        ("a", 2): 0.0,
        ("b", 2): 20.0,
    }
    sweep = _sweep(tmp_path, *(_row(s, task=task, seed=seed) for (task, seed), s in scores.items()))
    (point,) = averages.points(sweep, ("size", "method")).values()
    # Seeds: 20, 30, 10. Mean 20; deviations 0, 10, -10; variance 200 / 2.
    assert (point.mean, point.sd, point.seeds) == (20.0, 10.0, 3)
    by_task = averages.points(sweep, ("size", "method", "task"))
    assert by_task["pico", "prompt", "a"].mean == 10.0
    assert by_task["pico", "prompt", "b"].mean == 30.0
    assert point.total_params == sweep.cells[0]["total_params"]


def test_a_seed_without_every_task_is_left_out(tmp_path):
    failed = _row(None, task="b", seed=1, status="failed")
    sweep = _sweep(tmp_path, _row(10.0), _row(30.0, task="b"), _row(90.0, seed=1), failed)
    (point,) = averages.points(sweep, ("size", "method")).values()
    assert (point.mean, point.sd, point.seeds, point.incomplete) == (20.0, None, 1, 1)


def test_a_seed_that_failed_or_has_no_score_is_counted(tmp_path):
    failed = _row(None, seed=1, status="failed")
    sweep = _sweep(tmp_path, _row(10.0), failed, _row(None, seed=2), _row(30.0, method="model"))
    found = averages.points(sweep, ("method",))
    assert (found["prompt",].mean, found["prompt",].seeds, found["prompt",].incomplete) == (
        10.0,
        1,
        2,
    )
    assert (found["model",].seeds, found["model",].incomplete) == (1, 0)


def test_methods_may_have_other_seeds_and_tasks(tmp_path):
    tuned = [_row(50.0, task=task, seed=seed) for task in "ab" for seed in (0, 1)]
    frozen = [_row(30.0, method="frozen", task=task) for task in "ab"]
    multitask = [_row(40.0, method="multitask", task="all", seed=seed) for seed in (0, 1)]
    found = averages.points(_sweep(tmp_path, *tuned, *frozen, *multitask), ("method", "size"))
    seeds = {key[0]: (point.mean, point.seeds, point.incomplete) for key, point in found.items()}
    assert seeds == {"prompt": (50.0, 2, 0), "multitask": (40.0, 2, 0), "frozen": (30.0, 1, 0)}


def test_a_method_that_is_not_through_its_tasks_has_no_mean_yet(tmp_path):
    prompts = [_row(50.0, task=task, seed=seed) for task in "ab" for seed in (0, 1)]
    models = [_row(90.0, method="model", seed=seed) for seed in (0, 1)]
    found = averages.points(_sweep(tmp_path, *prompts, *models), ("size", "method"))
    assert (found["pico", "model"].seeds, found["pico", "model"].incomplete) == (0, 2)
    assert found["pico", "prompt"].mean == 50.0


def test_ensembles_are_no_seeds(tmp_path):
    sweep = _sweep(tmp_path, _row(10.0), _row(20.0, seed=1), _row(99.0, seed="ensemble"))
    (point,) = averages.points(sweep, ("size", "method")).values()
    assert (point.mean, point.seeds) == (15.0, 2)


def test_further_numbers_are_averaged_over_seeds(tmp_path):
    cells = [_row(0.0, seed=seed, evaluations={"far": {"f1": 10.0 * seed}}) for seed in (1, 2, 3)]
    found = averages.further_points(
        _sweep(tmp_path, *cells),
        ("size",),
        lambda cell: {(task, "f1"): m["f1"] for task, m in cell["evaluations"].items()},
    )
    assert set(found) == {("pico", "far", "f1")}
    assert (found["pico", "far", "f1"].mean, found["pico", "far", "f1"].sd) == (20.0, 10.0)


def test_time_to_the_mean(tmp_path):
    # Mean best score 80, so 79.2 is wanted: reached at half of 100 s, at the end of 60 s, and never.
    cells = [
        _row(80.0, curve=[[50, 79.5], [100, 80.0]], steps=100, train_seconds=100.0),
        _row(81.0, seed=1, curve=[[50, 79.0], [100, 81.0]], steps=100, train_seconds=60.0),
        _row(79.0, seed=2, curve=[[50, 79.0], [100, 79.0]], steps=100, train_seconds=10.0),
    ]
    (time,) = averages.times_to_mean(_sweep(tmp_path, *cells), ("size",)).values()
    assert (time.seeds, time.incomplete) == (2, 1)
    assert time.mean == 55.0
    assert time.sd == pytest.approx(50**0.5)


def test_a_row_without_a_curve_reaches_nothing(tmp_path):
    (time,) = averages.times_to_mean(_sweep(tmp_path, _row(80.0, curve=None)), ("size",)).values()
    assert math.isnan(time.mean)
    assert (time.seeds, time.incomplete) == (0, 1)
