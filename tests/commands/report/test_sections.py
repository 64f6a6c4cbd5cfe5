"""What every section shows, from rows of every sweep."""

import pytest

from prompt_tuning.commands.report import rows
from prompt_tuning.commands.report.figures import MEASURED, OTHER, PAPER
from prompt_tuning.commands.report.sections import sections
from tests.commands.report import rows_fixture


def _sections(tmp_path, *cells):
    results = rows.read([str(rows_fixture.write(tmp_path, *cells))])
    return {section.name: section for section in sections(results)}


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return _sections(folder, *(row for s in rows_fixture.ALL for row in rows_fixture.rows(s)))


def _column(table, name):
    index = list(table.columns).index(name)
    return [row[index] for row in table.rows]


def test_the_order_is_the_paper_s_and_own_sweeps_come_last(everything):
    assert list(everything) == [
        "figure_1",
        "figure_3a",
        "figure_3b",
        "figure_3c",
        "figure_3d",
        "table_1",
        "table_2",
        "table_3",
        "table_4",
        "table_5",
        "appendix_search",
        "real_data",
        "methods",
        "my_sweep",
    ]
    names = [sweep.name for section in everything.values() for sweep in section.sweeps]
    assert sorted(names) == sorted(rows_fixture.ALL)


def test_measured_and_published_numbers_never_share_a_panel(everything):
    compared = 0
    for section in everything.values():
        for panel in section.measured:
            assert {series.kind for series in panel.series} == {panel.kind} == {MEASURED}
            compared += 1
        for panel in section.published:
            assert MEASURED not in {series.kind for series in panel.series}
            compared += 1
        assert all(table.kind == MEASURED for table in section.tables)
        assert all(table.kind in (PAPER, OTHER) for table in section.published_tables)
    assert compared == 9


def test_figure_1_is_made_of_its_three_sweeps(everything):
    first, ranked = everything["figure_1"].measured
    assert [series.label for series in first.series] == [
        "Prompt tuning",
        "Model tuning",
        "Text prompt",
        "Frozen model, no prompt",
        "Multi-task model tuning",
    ]
    assert all(len(series.x) == 4 for series in first.series)
    assert [name for _, name in first.ticks] == ["pico", "nano", "micro", "mini"]
    assert [series.label for series in ranked.series] == ["Text prompt", "Frozen model, no prompt"]
    assert "ranked" in ranked.subtitle
    # A method has the same colour wherever it is.
    colours = {series.label: series.colour for series in first.series}
    for panel in (ranked, *everything["figure_1"].published):
        for series in panel.series:
            assert series.colour == colours[series.label.split(", the paper")[0]]
    assert everything["figure_1"].published[0].kind == OTHER


def test_a_scale_has_panels_and_tables_of_its_own(tmp_path):
    axes = {"size": "pico", "method": "prompt", "task": "synthetic_boolq", "seed": 0}
    cells = [rows_fixture.row("figure_1", axes, scale=scale) for scale in ("mini", "full")]
    section = _sections(tmp_path, *cells)["figure_1"]
    assert [panel.name for panel in section.measured] == ["figure_1.full", "figure_1.mini"]
    assert len(section.tables) == len(section.sweeps) == 2


def test_points_are_in_the_table_with_each_task(everything):
    (table,) = everything["figure_3b"].tables
    assert table.columns[:5] == ("size", "init", "parameters", "score", "seeds")
    assert tuple(table.columns[5:]) == ("boolq", "cb", "sentiment")
    assert table.caption.endswith("; tasks synthetic_…")
    assert len(table.rows) == 12
    row = table.rows[0]
    assert [cell.text for cell in row[:2]] == ["pico", "random_uniform"]
    assert row[3].sort == pytest.approx(sum(cell.sort for cell in row[5:]) / 3)
    assert "±" in row[3].text and row[4].text == "3"


def test_a_point_without_a_complete_seed_says_so(tmp_path):
    cells = rows_fixture.rows("figure_3b")
    for cell in cells:
        axes = cell["axes"]
        if (axes["size"], axes["init"], axes["task"]) == ("pico", "class_label", "synthetic_cb"):
            cell |= {"status": "failed", "score": None, "error": "boom"}
    section = _sections(tmp_path, *cells)["figure_3b"]
    (panel,) = section.measured
    assert [len(series.x) for series in panel.series] == [4, 4, 3]
    (table,) = section.tables
    incomplete = [row for row in table.rows if row[4].text == "0"]
    assert [[cell.text for cell in row[:2]] for row in incomplete] == [["pico", "class_label"]]
    assert incomplete[0][3].note == "no seed has every task: not averaged"
    assert [cell["error"] for cell in section.sweeps[0].failed] == ["boom"] * 3


def test_table_1_has_the_difference_of_the_methods(everything):
    (table,) = everything["table_1"].tables
    prompt, model = _column(table, "Prompt tuning"), _column(table, "Model tuning")
    assert [cell.text for cell in _column(table, "evaluated on")] == [
        "the same",
        *["synthetic_multirc"] * 2,
    ]
    assert [cell.text for cell in _column(table, "metric")] == ["accuracy", "accuracy", "f1"]
    for difference, first, second in zip(
        _column(table, "prompt less model tuning"), prompt, model, strict=True
    ):
        assert difference.sort == pytest.approx(first.sort - second.sort)
    # The fixture's metrics there are 0.8 and 0.7 of the score.
    assert prompt[1].sort == pytest.approx(0.8 * prompt[0].sort)
    assert prompt[2].sort == pytest.approx(0.7 * prompt[0].sort)


def test_table_3_has_the_votes_and_their_mean(everything):
    (table,) = everything["table_3"].tables
    assert [cell.text for cell in _column(table, "prompts")] == ["5", "5", "5", ""]
    assert _column(table, "task")[-1].text == "mean of 3 tasks"
    for kind in ("average", "best", "ensemble"):
        *each, mean = [cell.sort for cell in _column(table, kind)]
        assert mean == pytest.approx(sum(each) / 3)
    first = table.rows[0]
    assert first[-1].sort - first[-2].sort == pytest.approx(1)


def test_numbers_that_a_row_lacks_are_left_out(tmp_path):
    found = [rows_fixture.rows(name) for name in ("table_1", "table_2", "table_3")]
    for cell in found[0] + found[1]:
        cell["evaluations"] = {"far": {"accuracy": 50.0, "f1": None}}
    votes = [cell for cell in found[2] if cell["axes"]["seed"] == "ensemble"]
    votes[0]["metrics"] = dict.fromkeys(("average", "best", "ensemble"))
    # The members of the last ensemble have no rows of their own.
    alone = votes[-1]["axes"]["task"]
    kept = [c for c in found[2] if c is votes[-1] or c["axes"]["task"] != alone]
    shown = _sections(tmp_path, *found[0], *found[1], *kept)
    (first,), (second,) = shown["table_1"].tables, shown["table_2"].tables
    assert [cell.text for cell in _column(first, "evaluated on")] == ["the same", "far"]
    assert [cell.text for cell in _column(first, "metric")] == ["accuracy"] * 2
    assert [cell.text for cell in _column(second, "metric")] == ["accuracy"] * 4
    (third,) = shown["table_3"].tables
    assert [cell.text for cell in _column(third, "prompts")] == ["5", "5", "0", ""]
    assert _column(third, "ensemble")[0].text == _column(third, "ensemble")[-1].text == ""


def _table_4(tmp_path, **changed):
    axes = {"size": "small", "method": "prompt", "length": 20}
    counts = {"trainable_params": 10_240, "total_params": 76_971_392, "score": None, **changed}
    row = rows_fixture.row("table_4", axes | {"size": "mini"}) | counts
    row["axes"] = {name: str(value) for name, value in axes.items()}
    (table,) = _sections(tmp_path, {**row, "scale": "full"})["table_4"].tables
    return table


def test_table_4_is_compared_with_the_paper_at_full_scale(tmp_path):
    table = _table_4(tmp_path)
    assert [cell.text for cell in _column(table, "equal")] == ["yes"]
    assert _column(table, "paper: trainable")[0].note == "misprint: the paper has 10,420"
    assert table.published_columns == (5, 6)
    other = _table_4(tmp_path, total_params=76_971_572)
    assert [cell.text for cell in _column(other, "equal")] == ["no"]


def test_table_4_in_miniature_is_compared_with_nothing(everything):
    (table,) = everything["table_4"].tables
    assert table.columns[-1] == "trainable, %"
    assert len(table.rows) == 24


def test_table_5_has_times(everything):
    (table,) = everything["table_5"].tables
    assert len(table.rows) == 16
    assert all(cell.text.endswith("of 3") for cell in _column(table, "runs that reach it"))
    assert all(cell.sort > 0 for cell in _column(table, "time"))
    (published,) = everything["table_5"].published_tables
    assert [cell.text for cell in published.rows[0]] == ["Small", "16:25", "9:05", "", ""]


def test_the_search_is_best_first(everything):
    scores = [cell.sort for cell in _column(everything["appendix_search"].tables[0], "score")]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4


def test_without_rows_the_published_numbers_are_still_there(tmp_path):
    shown = _sections(tmp_path, *rows_fixture.rows("my_sweep"))
    assert len(shown) == 14
    assert [name for name, section in shown.items() if section.sweeps] == ["my_sweep"]
    assert shown["table_3"].published_tables[0].rows


def test_methods_are_told_apart_by_what_they_train_and_cost(tmp_path):
    cells = []
    for task, seconds in (("a", 10.0), ("b", 30.0), ("c", None)):
        axes = {"size": "micro", "method": "ia3", "task": task, "seed": 0}
        cells.append(rows_fixture.row("methods", axes, train_seconds=seconds, update_bytes=2**27))
    # A version that did not measure memory, and a cell that failed.
    cells[0]["update_bytes"] = None
    cells.append({**cells[2], "cell": "x", "axes": {**cells[2]["axes"], "task": "d"}})
    cells[3] |= {"status": "failed", "score": None}
    section = _sections(tmp_path, *cells)["methods"]
    costs, by_task = section.tables
    (row,) = costs.rows
    shown = dict(zip(costs.columns, (cell.text for cell in row), strict=True))
    assert (shown["method"], shown["trained parameters"]) == ("(IA)3", "1,920")
    assert (shown["ms an update"], shown["MiB of an update"]) == ("20.0", "128.0")
    assert shown["seeds"] == "0" and "d" in by_task.columns
    (published,) = section.published_tables
    assert published.columns[-1] == "mean" and len(published.rows) == 7
