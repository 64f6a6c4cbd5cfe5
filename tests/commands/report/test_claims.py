"""The paper's claims, and the verdict that cells give."""

import pytest

from prompt_tuning.commands.report import claims, rows
from prompt_tuning.commands.report.averages import Point
from prompt_tuning.commands.report.claims import AGREES, DIFFERS, IN_PART, UNDECIDED, Difference
from prompt_tuning.commands.report.published import PAPER
from tests.commands.report import rows_fixture

UP, DOWN, OPEN = Difference("a", 3.0, 1.0), Difference("b", -3.0, 1.0), Difference("c", 1.0, 1.0)


def sweep_of(tmp_path, scores, name="figure_3a", **axes):
    """The sweep whose rows have these scores by size, length and seed."""
    found = [
        rows_fixture.row(
            name,
            {"size": size, "method": "prompt", "length": length, "seed": seed, **axes},
            score=score,
        )
        for (size, length), seeds in scores.items()
        for seed, score in enumerate(seeds)
    ]
    return rows.read([str(rows_fixture.write(tmp_path, *found))])


def test_the_error_of_a_difference_is_that_of_two_means():
    found = claims.difference("mini", Point(60.0, 3.0, 3), Point(50.0, 4.0, 4))
    assert (found.value, found.error) == (10.0, pytest.approx((9 / 3 + 16 / 4) ** 0.5))
    assert found.counts and str(found) == "mini +10.0 ± 2.6*"
    # A text prompt is not trained, and has no seeds: nothing tells what chance does.
    single = claims.difference("mini", Point(60.0, None, 1), Point(50.0, None, 1))
    assert single.error is None and not single.counts and str(single) == "mini +10.0"
    assert claims.higher([single]) == claims.hardly_higher([single]) == UNDECIDED
    # Three seeds that all score alike tell.
    assert claims.difference("mini", Point(60.0, 0.0, 3), Point(50.0, None, 1)).counts


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([UP, UP], AGREES),
        ([UP, OPEN], IN_PART),
        ([OPEN, OPEN], UNDECIDED),
        ([UP, DOWN], DIFFERS),
        ([OPEN, DOWN], DIFFERS),
        ([DOWN, DOWN], DIFFERS),
    ],
)
def test_verdicts(found, verdict):
    assert claims.higher(found) == verdict


def test_most_is_more_than_half():
    assert claims.mostly_higher([UP, UP, DOWN]) == AGREES
    assert claims.mostly_higher([UP, OPEN]) == IN_PART
    assert claims.mostly_higher([UP, DOWN]) == claims.mostly_higher([UP, DOWN, DOWN]) == DIFFERS
    assert claims.mostly_higher([DOWN, OPEN]) == DIFFERS
    assert claims.mostly_higher([OPEN, OPEN]) == UNDECIDED


def test_a_marginal_gain_is_one_below_two_points():
    told = [c["sentence"] for c in PAPER["claims"] if c["verdict"] == "hardly_higher"]
    assert told and all(f"fewer than {claims.MARGINAL:.0f} points" in text for text in told)
    little, much = Difference("a", 1.7, 0.1), Difference("a", 4.0, 1.0)
    assert claims.hardly_higher([little, DOWN]) == AGREES
    # 8 ± 5 may be nothing and may be much.
    assert claims.hardly_higher([Difference("a", 8.0, 5.0), little]) == IN_PART
    assert claims.hardly_higher([Difference("a", 8.0, 5.0)]) == UNDECIDED
    assert claims.hardly_higher([much, little]) == claims.hardly_higher([much, much]) == DIFFERS


def test_votes_are_judged_on_the_mean_over_tasks():
    of = lambda *values: [Difference("", v, None) for v in values]  # noqa: E731
    assert claims.higher_on_the_whole(of(1.0, 0.0)) == AGREES
    assert claims.higher_on_the_whole(of(2.0, -1.0)) == IN_PART
    assert claims.higher_on_the_whole(of(0.0, 0.0)) == DIFFERS
    assert claims.not_lower_on_the_whole(of(0.0, 0.0)) == AGREES
    assert claims.not_lower_on_the_whole(of(2.0, -1.0)) == IN_PART
    assert claims.not_lower_on_the_whole(of(1.0, -2.0)) == DIFFERS


def test_an_ensemble_without_a_score_is_left_out(tmp_path):
    axes = {"size": "mini", "method": "prompt", "seed": "ensemble"}
    metrics = {"average": None, "best": None, "ensemble": None}
    found = [
        rows_fixture.row("table_3", {**axes, "task": "stsb"}, score=None, metrics=metrics),
        rows_fixture.row(
            "table_3",
            {**axes, "task": "rte"},
            metrics={"average": 50.0, "best": 52.0, "ensemble": 53.0},
        ),
    ]
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path, *found))]).sweeps
    assert [d.value for d in claims.votes(sweep, "best")] == [1.0]


def test_sizes_are_compared_where_both_values_were_measured(tmp_path):
    scores = {("pico", 1): (50, 52), ("pico", 20): (60, 62), ("mini", 20): (70, 72)}
    (sweep,) = sweep_of(tmp_path, scores).sweeps
    (found,) = claims.by_size(sweep, "length", "20", "1")
    assert (found.where, found.value, found.counts) == ("pico", 10.0, True)
    assert claims.by_size(sweep, "init", "class_label", "random_uniform") == []
    assert claims.shrinkage(sweep, "length", "20", "1") == []
    assert [d.where for d in claims.between_ends(sweep, "length")] == ["pico"]


def test_a_gap_that_closes_with_size(tmp_path):
    scores = {("pico", 1): (50, 52), ("pico", 20): (60, 62)}
    scores |= {("mini", 1): (70, 72), ("mini", 20): (71, 73)}
    (sweep,) = sweep_of(tmp_path, scores).sweeps
    (found,) = claims.shrinkage(sweep, "length", "20", "1")
    assert (found.where, found.value) == ("pico less mini", 9.0)
    assert found.error == pytest.approx(2.0)
    assert claims.higher([found]) == AGREES


def test_the_table_has_a_verdict_for_all_that_was_measured(tmp_path):
    folder = rows_fixture.write_everything(tmp_path)
    table = claims.table(rows.read([str(folder)]))
    assert table is not None
    told = {(row[0].text, row[1].text): row for row in table.rows}
    assert set(told) == {(claim["place"], claim["sentence"]) for claim in PAPER["claims"]}
    assert {row[2].text for row in table.rows} <= {AGREES, IN_PART, DIFFERS, UNDECIDED}
    # The made-up rows of ensembles are 2 above the average and 1 above the best, of every task.
    above = [row for (place, _), row in told.items() if place == "Table 3"]
    assert [row[2].text for row in above] == [AGREES, AGREES]
    assert "synthetic_cb +2.0" in above[0][3].text
    # Table 1 compares what was evaluated on another task than it was trained on.
    (transfer,) = [row for (place, _), row in told.items() if place == "Table 1"]
    assert transfer[3].text.count("synthetic_boolq to synthetic_multirc") == 1


def test_answers_on_other_domains_are_compared_by_f1(tmp_path):
    axes = {"size": "mini", "source": "squad"}
    found = [
        rows_fixture.row(
            "table_1",
            {**axes, "method": method, "seed": seed},
            evaluations={"mrqa": {"em": em, "f1": f1}, "rank": {"exact_match": 1.0, "f1": em}},
        )
        for method, em, f1 in (("prompt", 10.0, 60.0), ("model", 20.0, 50.0))
        for seed in (0, 1)
    ]
    (sweep,) = rows.read([str(rows_fixture.write(tmp_path, *found))]).sweeps
    values = {d.where: d.value for d in claims.on_other_tasks(sweep)}
    assert values == {"squad to mrqa": 10.0, "squad to rank": -5.0}


def test_there_is_no_table_where_nothing_was_measured(tmp_path):
    folder = rows_fixture.write(tmp_path, *rows_fixture.rows("my_sweep"))
    assert claims.table(rows.read([str(folder)])) is None
