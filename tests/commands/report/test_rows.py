"""Reading rows: what counts, what is noted, what is missing."""

import json

import pytest

from prompt_tuning.commands.report import command, rows
from prompt_tuning.errors import DataError
from tests.commands.report import rows_fixture


def _axes(**changed):
    return {"size": "pico", "method": "prompt", "task": "synthetic_boolq", "seed": 0, **changed}


def test_every_sweep_is_found_with_all_its_cells(tmp_path):
    folder = rows_fixture.write(
        tmp_path, *(r for s in rows_fixture.ALL for r in rows_fixture.rows(s))
    )
    results = rows.read([str(folder)])
    assert {sweep.name for sweep in results.sweeps} == set(rows_fixture.ALL)
    assert not results.notes
    for sweep in results.sweeps:
        assert len(sweep.cells) == len(rows_fixture.rows(sweep.name)) == len(sweep.done)
        # Untuned models have one seed, and ensembles none of their own: nothing is missing for that.
        assert sweep.missing == ()
        assert sweep.axes == tuple(rows_fixture.ALL[sweep.name])


def test_torn_lines_are_left_out_and_told(tmp_path):
    first, second = rows_fixture.rows("table_1")[:2]
    folder = rows_fixture.write(
        tmp_path, first, json.dumps(second)[:40] + "\n", second, '{"sweep": "table_1", "sca'
    )
    results = rows.read([str(folder)])
    assert len(results.sweeps[0].cells) == 2
    file = folder / "results.jsonl"
    assert results.notes == (
        f"{file}, line 2 is torn and was left out.",
        f"{file}, line 4 is torn and was left out.",
    )


def test_the_first_done_row_of_a_cell_counts(tmp_path):
    failed = rows_fixture.row("figure_1", _axes(), status="failed", score=None, error="first")
    done = rows_fixture.row("figure_1", _axes(), score=50.0)
    later = [{**failed, "error": "later"}, {**done, "score": 60.0}]
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path / "a", failed, done, *later))]).sweeps
    assert [cell["score"] for cell in sweep.cells] == [50.0]
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path / "b", failed, later[0]))]).sweeps
    assert [cell["error"] for cell in sweep.failed] == ["later"]
    assert sweep.done == []


def test_a_cell_with_two_configs_is_told(tmp_path):
    old = rows_fixture.row("figure_1", _axes(), score=50.0)
    new = rows_fixture.row("figure_1", _axes(), score=60.0, key="another")
    results = rows.read([str(rows_fixture.write(tmp_path, old, new))])
    assert [cell["score"] for cell in results.sweeps[0].cells] == [60.0]
    assert len(results.notes) == 1
    assert "done with another config before" in results.notes[0]
    assert old["cell"] in results.notes[0]
    # A config that failed and was mended is nothing to tell.
    mended = rows.read([str(rows_fixture.write(tmp_path, {**old, "status": "failed"}, new))])
    assert [cell["score"] for cell in mended.sweeps[0].cells] == [60.0] and not mended.notes


def test_rows_count_that_are_of_the_settings_a_sweep_has_now(tmp_path):
    old = [rows_fixture.row("figure_1", _axes(seed=seed), score=50.0) for seed in (0, 1)]
    new = {**old[0], "score": 60.0, "key": "new"}
    later = rows_fixture.row("figure_1", _axes(seed=7), score=70.0)
    folder = rows_fixture.write(tmp_path, new, *old, later)
    labels = {"new": old[0]["cell"], "another": old[1]["cell"]}
    plan = {"figure_1": {"mini": labels, "full": {}}, "figure_3a": {"mini": {}}}
    (folder / "cells.json").write_text(json.dumps(plan))
    results = rows.read([str(folder)])
    (sweep,) = results.sweeps
    assert [cell["score"] for cell in sweep.cells] == [60.0]
    assert sweep.missing == (old[1]["cell"],)
    assert results.notes == (
        f"{folder}/results.jsonl: 3 rows of other settings than those that their sweeps have now are left out.",
    )
    # Back to the settings before: their rows are there already, and count again.
    plan["figure_1"]["mini"] = {row["key"]: row["cell"] for row in old}
    (folder / "cells.json").write_text(json.dumps(plan))
    (sweep,) = rows.read([str(folder)]).sweeps
    assert [cell["score"] for cell in sweep.cells] == [50.0, 50.0] and sweep.missing == ()


def test_several_folders_and_folders_of_folders(tmp_path):
    found = rows_fixture.rows("table_1")
    rows_fixture.write(tmp_path / "all" / "one", *found[:2])
    rows_fixture.write(tmp_path / "all" / "two", *found[2:4])
    rest = rows_fixture.write(tmp_path / "rest", *found[4:])
    results = rows.read([str(tmp_path / "all"), str(rest / "results.jsonl")])
    assert len(results.sweeps[0].done) == len(found) == 6


def test_scales_are_kept_apart(tmp_path):
    cells = [rows_fixture.row("figure_1", _axes(), scale=scale) for scale in ("full", "mini")]
    without = rows_fixture.row("figure_1", _axes()) | {"scale": None}
    results = rows.read([str(rows_fixture.write(tmp_path, *cells, without))])
    assert [sweep.scale for sweep in results.find("figure_1")] == ["", "full", "mini"]


def test_missing_cells_are_those_of_the_product_within_a_method(tmp_path):
    cells = [
        rows_fixture.row("figure_1", _axes(size=size, seed=seed))
        for size, seed in (("pico", 0), ("pico", 1), ("nano", 0))
    ]
    cells.append(rows_fixture.row("figure_1", _axes(method="frozen")))
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path, *cells))]).sweeps
    assert sweep.missing == ("size=nano,method=prompt,task=synthetic_boolq,seed=1",)


def test_values_are_in_the_order_of_legends(tmp_path):
    found = [
        *rows_fixture.rows("figure_1"),
        *rows_fixture.rows("figure_3d"),
        *rows_fixture.rows("table_3"),
    ]
    results = rows.read([str(rows_fixture.write(tmp_path, *found))])
    first, steps, ensembles = results.sweeps
    assert first.values("size") == ["pico", "nano", "micro", "mini"]
    assert first.values("method") == ["prompt", "model", "text", "frozen"]
    assert steps.values("adapt_steps") == ["0 %", "1 %", "5 %", "10 %"]
    assert ensembles.values("seed") == ["0", "1", "2", "3", "4"]
    assert len(ensembles.ensembles) == 3
    assert first.values("length") == []


def test_what_is_no_result_is_an_error(tmp_path):
    with pytest.raises(DataError, match="No results here.*no-such.*Fix: name the --output_dir"):
        rows.read([str(tmp_path / "no-such")])
    with pytest.raises(DataError, match="hold no row"):
        rows.read([str(rows_fixture.write(tmp_path / "empty", "\n"))])
    with pytest.raises(DataError, match="hold no row.*line 1 is torn and was left out"):
        rows.read([str(rows_fixture.write(tmp_path / "torn", '{"sweep": \n'))])
    with pytest.raises(DataError, match=r"line 1\): got 'no axes, status'"):
        rows.read(
            [str(rows_fixture.write(tmp_path / "b", {"sweep": "a", "scale": "", "cell": ""}))]
        )
    with pytest.raises(DataError, match="not one of a sweep"):
        rows.read([str(rows_fixture.write(tmp_path / "c", "[1]\n"))])


_JUNK = (None, True, -1, 1e999, 10**400, "", "x", [], [1], [[1, "x"]], {}, {"x": []}, {"x": None})


@pytest.mark.parametrize("field", sorted(rows_fixture.row("figure_3b", {"size": "mini"})))
def test_a_row_of_any_json_is_passed_over_or_named(field, tmp_path):
    axes = {"size": "mini", "init": "class_label", "task": "synthetic_cb", "seed": 0}
    good = rows_fixture.row("figure_3b", axes)
    odd = [rows_fixture.row("figure_3b", {**axes, "seed": n + 1}) for n in range(len(_JUNK))]
    odd += [rows_fixture.row("table_3", {**axes, "seed": n}) for n in ("ensemble", "ensemble")]
    lines = [{**row, field: junk} for row, junk in zip(odd, (*_JUNK, {}, None), strict=True)]
    lacking = {name: value for name, value in odd[0].items() if name != field}
    rows_fixture.write(
        tmp_path / "in", good, *lines, *([] if field in rows._REQUIRED else [lacking])
    )
    out = tmp_path / "out"
    command.main([str(tmp_path / "in"), f"--output_dir={out}"])
    assert (out / "index.html").exists()


@pytest.mark.parametrize("line", ["7", "[]", '"x"', "{}", "null", '{"sweep": 1}', "\x00"])
def test_a_line_of_other_json_is_named(line, tmp_path):
    rows_fixture.write(tmp_path, line + "\n")
    with pytest.raises(DataError):
        rows.read([str(tmp_path)])
