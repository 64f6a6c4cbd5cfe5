"""Every comparison with reference numbers: the small copies here, and the larger set beside a checkout."""

import csv
import itertools
import json
import pathlib
import runpy
import shutil
import sys

import numpy as np
import pytest

from prompt_tuning.models import layers
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.golden import check
from tests.helpers import GOLDEN, REPO, SHARED, requires_shared
from tests.parity import golden, golden_forward
from tests.parity.golden_folder import Golden
from tests.parity.rows import Row

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")

# Comparison -> rows that it has at least on the small copies.
ROWS = {
    "forward": 16,
    "forward_metrics": 6,
    "gradients": 2,
    "bfloat16": 4,
    "losses": 4,
    "trajectories": 18,
    "model_tuning": 14,
    "adafactor": 16,
    "schedules": 1,
    "decoding": 26,
    "cache": 6,
    "sampling": 18,
    "scores": 3,
    "checkpoints": 3,
    "optimizer_state": 3,
    "relative_positions": 16,
    "combination": 3,
    "initializers": 2,
    "metrics": 17,
    "tasks": 64,
    "language_modeling": 26,
}
# What the larger set has more of than the copies; those that take about ten seconds run with the slow tests.
LARGER = (
    "gradients",
    "adafactor",
    "checkpoints",
    "optimizer_state",
    pytest.param("trajectories", marks=pytest.mark.slow),
    pytest.param("model_tuning", marks=pytest.mark.slow),
    # Their tokens: the vocabulary is not here.
    pytest.param("tasks", marks=pytest.mark.slow),
)
# Copied to the byte, so that the same numbers would be compared again.
COPIED = (
    "batch.npz",
    "batches_cycle.npz",
    "combine.npz",
    "decode.npz",
    "forward.npz",
    "forward_bf16.npz",
    "forward_metrics.json",
    "lm",
    "losses.npz",
    "lr_schedules.json",
    "meta.json",
    "metrics",
    "params.npz",
    "prompt.npy",
    "relpos.npz",
    "score.npz",
)


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Golden:
    """The small copies, with the T5X checkpoint that their arrays make up."""
    folder = tmp_path_factory.mktemp("golden") / "golden"
    shutil.copytree(GOLDEN, folder)
    meta = json.loads((folder / "meta.json").read_text())["checkpoint"]
    with (
        np.load(folder / "optimizer_state.npz") as moments,
        np.load(folder / "params.npz") as params,
    ):
        arrays = {name: x for name, x in moments.items() if name != "step"}
        write_t5x_checkpoint(folder / meta["path"], dict(params), meta["step"], moments=arrays)
    return Golden(folder)


def test_every_comparison_is_tested():
    assert set(ROWS) == set(golden.COMPARISONS)


@pytest.mark.parametrize("name", ROWS)
def test_the_small_copies_hold(copies, name):
    report = golden.compare(copies, (name,))
    assert [row for row in report.rows if not row.ok] == []
    assert len(report.rows) >= ROWS[name]
    # The table that readers see has the rows that there are, and no tighter or looser tolerance.
    page = rows_of_the_page()
    tolerances = {row.name: f"{row.tolerance:.2g}" for row in report.rows}
    assert tolerances == {row: page.get(row) for row in tolerances}


@requires_shared
def test_what_is_compared_here_alone_is_the_larger_sets():
    assert SHARED is not None
    files = [
        file
        for name in COPIED
        for file in ([GOLDEN / name] if (GOLDEN / name).is_file() else (GOLDEN / name).iterdir())
    ]
    assert len(files) > len(COPIED)
    for file in files:
        theirs = SHARED / "golden" / file.relative_to(GOLDEN)
        assert file.read_bytes() == theirs.read_bytes(), file


@requires_shared
@pytest.mark.parametrize("name", LARGER)
def test_the_larger_set_holds(name, shared_golden):
    report = golden.compare(shared_golden, (name,))
    assert [row for row in report.rows if not row.ok] == []
    assert len(report.rows) >= ROWS[name]


@pytest.fixture(scope="module")
def shared_golden() -> Golden:
    assert SHARED is not None
    return Golden(SHARED / "golden", SHARED / check.VOCABULARY)


def rows_of_the_page() -> dict[str, str]:
    """The comparisons in docs/measured/parity.csv with their tolerances."""
    with (REPO / "docs/measured/parity.csv").open(encoding="utf-8", newline="") as file:
        return {row["comparison"]: row["tolerance"] for row in csv.DictReader(file)}


def failing(folder, name) -> set[str]:
    return {row.name for row in golden.compare(Golden(folder), (name,)).rows if not row.ok}


def test_a_wrong_epsilon_shows(monkeypatch):
    monkeypatch.setattr(layers, "NORM_EPSILON", 1e-5)
    for name in ("compiled_loss", "compiled_encode"):
        uncached = getattr(golden_forward, name).__wrapped__
        monkeypatch.setattr(golden_forward, name, uncached)
    # The rows of the first model are enough.
    rows = itertools.islice(golden_forward.forward(Golden(GOLDEN)), 6)
    wrong = {row.name for row in rows if isinstance(row, Row) and not row.ok}
    assert {"forward/logits", "forward/encoder_output"} <= wrong


def test_prompt_rows_in_another_order_show(tmp_path):
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    np.save(folder / "prompt.npy", np.load(folder / "prompt.npy")[::-1])
    wrong = failing(folder, "forward")
    assert {"forward/logits", "forward/gradient_prompt"} <= wrong
    assert not any(name.startswith("forward_noprompt") for name in wrong)


def test_a_second_moment_that_is_off_by_a_thousandth_shows(tmp_path):
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    with np.load(folder / "trajectory.npz") as file:
        arrays = dict(file)
    arrays["v_after"][7] *= 1.001
    np.savez(folder / "trajectory.npz", **arrays)
    wrong = failing(folder, "trajectories")
    assert "prompt_tuning/trajectory/second_moments" in wrong
    assert all(name.startswith("prompt_tuning/trajectory/") for name in wrong)


def small_folder(path):
    """A folder with so little in it that it is compared in seconds."""
    path.mkdir()
    for name in ("meta.json", "relpos.npz", "lr_schedules.json"):
        shutil.copyfile(GOLDEN / name, path / name)
    return path


def test_the_command_runs_from_anywhere_and_prints_one_object(tmp_path, capsys, monkeypatch):
    folder = small_folder(tmp_path / "golden")
    monkeypatch.chdir(tmp_path)
    script = REPO / "tests/golden/check.py"
    elsewhere = [p for p in sys.path if pathlib.Path(p).resolve() != REPO.resolve()]
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.setattr(sys, "argv", [str(script), str(folder), "--format=json"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(script), run_name="__main__")
    # What the packages are imported from.
    assert done.value.code == 0 and sys.path[0] == str(REPO.resolve())
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True and len(report["rows"]) == 17
    assert {"name", "measured", "tolerance", "ok"} <= set(report["rows"][0])
    missing = {item["name"] for item in report["not_checked"]}
    assert {"forward.npz", "trajectory.npz", "optimizer_state.npz"} <= missing


def test_the_command_fails_where_a_row_does_not_hold(tmp_path, capsys):
    folder = small_folder(tmp_path / "golden")
    with np.load(folder / "relpos.npz") as file:
        arrays = dict(file)
    arrays["buckets_32_128_causal"][400] += 1
    np.savez(folder / "relpos.npz", **arrays)
    assert check.main([str(folder), "--format=json"]) == 1
    report = json.loads(capsys.readouterr().out)
    wrong = [row for row in report["rows"] if not row["ok"]]
    name = "relative_positions/buckets_32_128_causal"
    assert [row["name"] for row in wrong] == [name, f"{name}/traced"]
    assert [row["measured"] for row in wrong] == [1.0, 1.0]
    assert check.main([str(folder)]) == 1
    assert "17 comparisons, 2 do not hold." in capsys.readouterr().out


def test_nothing_compared_is_not_ok(tmp_path, capsys):
    (tmp_path / "meta.json").write_text("{}")
    assert check.main([str(tmp_path), "--format=json"]) == 1
    assert json.loads(capsys.readouterr().out)["rows"] == []


def test_what_breaks_down_does_not_hold(tmp_path, capsys):
    folder = small_folder(tmp_path / "golden")
    (folder / "lr_schedules.json").write_text('[{"kwargs": {"factors": "unheard_of"}}]')
    assert check.main([str(folder), "--format=json"]) == 1
    wrong = [row for row in json.loads(capsys.readouterr().out)["rows"] if not row["ok"]]
    assert [row["name"] for row in wrong] == ["schedules/completed"]
    assert wrong[0]["measured"] is None and "unheard_of" in wrong[0]["note"]


def test_a_setting_without_counterpart_is_not_checked(tmp_path):
    folder = tmp_path / "golden"
    shutil.copytree(GOLDEN, folder)
    meta = json.loads((folder / "meta.json").read_text())
    meta["trajectory"]["adafactor"]["beta1"] = 0.9
    (folder / "meta.json").write_text(json.dumps(meta))
    report = golden.compare(Golden(folder), ("trajectories",))
    assert report.rows == [] and not report.ok
    assert any("beta1 = 0.9" in item.reason for item in report.not_checked)


def test_a_folder_without_settings_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        check.main([str(tmp_path)])
    assert error.value.code == 2 and "no meta.json" in capsys.readouterr().err


def test_not_a_number_never_holds():
    assert not Row("a", float("nan"), 1.0).ok


def test_numbers_that_json_cannot_hold_are_numbers(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    (tmp_path / "metrics").mkdir()
    parsed = [{"prediction": text, "result": text} for text in ("nan", "inf", "-inf")]
    wrong = [{"prediction": "1", "result": "nan"}, {"prediction": "nan", "result": 1.0}]
    cases = {"string_to_float": [*parsed, *wrong]}
    (tmp_path / "metrics" / "postprocess.json").write_text(json.dumps(cases))
    undefined = {"pearson_corrcoef": "nan", "spearman_corrcoef": "nan"}
    case = {"targets": [1.0, 2.0], "predictions": ["nan", 2.0], "result": undefined}
    (tmp_path / "metrics" / "stsb.json").write_text(json.dumps({"cases": [case]}))
    rows = {row.name: row for row in golden.compare(Golden(tmp_path), ("metrics",)).rows}
    assert rows["postprocess/string_to_float"].measured == len(wrong)
    assert rows["metrics/stsb"].ok
