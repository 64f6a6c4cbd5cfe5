"""The paper's claims, and the verdict that cells give."""

import pytest

from prompt_tuning.report import claims, rows
from prompt_tuning.report.averages import Point
from prompt_tuning.report.claims import AGREES, DIFFERS, IN_PART, UNDECIDED, Difference
from tests.report import rows_fixture

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
    # A text prompt is not trained, and has no seeds.
    assert claims.difference("mini", Point(60.0, None, 1), Point(50.0, None, 1)).error == 0


@pytest.mark.parametrize(
    ("found", "higher", "not_lower"),
    [
        ([UP, UP], AGREES, AGREES),
        ([UP, OPEN], IN_PART, AGREES),
        ([OPEN, OPEN], UNDECIDED, AGREES),
        ([UP, DOWN], DIFFERS, IN_PART),
        ([DOWN, DOWN], DIFFERS, DIFFERS),
    ],
)
def test_verdicts(found, higher, not_lower):
    assert claims.higher(found) == higher
    assert claims.not_lower(found) == not_lower


def test_most_is_more_than_half():
    assert claims.mostly_higher([UP, UP, DOWN]) == AGREES
    assert claims.mostly_higher([UP, OPEN]) == claims.mostly_higher([UP, DOWN]) == IN_PART
    assert claims.mostly_higher([DOWN, OPEN]) == DIFFERS
    assert claims.mostly_higher([OPEN, OPEN]) == UNDECIDED


def test_a_marginal_gain_is_one_below_two_points():
    assert claims.hardly_higher([Difference("a", 1.9, 0.1), DOWN, OPEN]) == AGREES
    assert claims.hardly_higher([UP, OPEN]) == IN_PART
    assert claims.hardly_higher([UP, UP]) == DIFFERS


def test_votes_are_judged_on_the_mean_over_tasks():
    of = lambda *values: [Difference("", v, 0.0) for v in values]  # noqa: E731
    assert claims.higher_on_the_whole(of(1.0, 0.0)) == AGREES
    assert claims.higher_on_the_whole(of(2.0, -1.0)) == IN_PART
    assert claims.higher_on_the_whole(of(0.0, 0.0)) == DIFFERS


def test_sizes_are_compared_where_both_values_were_measured(tmp_path):
    scores = {("pico", 1): (50, 52), ("pico", 20): (60, 62), ("mini", 20): (70, 72)}
    (sweep,) = sweep_of(tmp_path, scores).sweeps
    (found,) = claims.by_size("length", "20", "1")(sweep)
    assert (found.where, found.value, found.counts) == ("pico", 10.0, True)
    assert claims.by_size("init", "class_label", "random_uniform")(sweep) == []
    assert claims.shrinkage("length", "20", "1")(sweep) == []
    assert [d.where for d in claims.between_ends("length")(sweep)] == ["pico"]


def test_a_gap_that_closes_with_size(tmp_path):
    scores = {("pico", 1): (50, 52), ("pico", 20): (60, 62)}
    scores |= {("mini", 1): (70, 72), ("mini", 20): (71, 73)}
    (sweep,) = sweep_of(tmp_path, scores).sweeps
    (found,) = claims.shrinkage("length", "20", "1")(sweep)
    assert (found.where, found.value) == ("pico less mini", 9.0)
    assert found.error == pytest.approx(2.0)
    assert claims.higher([found]) == AGREES


def test_the_table_has_a_verdict_for_all_that_was_measured(tmp_path):
    folder = rows_fixture.write_everything(tmp_path)
    table = claims.table(rows.read([str(folder)]))
    assert table is not None
    told = {(row[0].text, row[1].text): row for row in table.rows}
    assert set(told) == {(claim.place, claim.sentence) for claim in claims.CLAIMS}
    assert {row[2].text for row in table.rows} <= {AGREES, IN_PART, DIFFERS}
    # The made-up rows of ensembles are 2 above the average and 1 above the best, of every task.
    above = [row for (place, _), row in told.items() if place == "Table 3"]
    assert [row[2].text for row in above] == [AGREES, AGREES]
    assert "synthetic_cb +2.0" in above[0][3].text
    # Table 1 compares what was evaluated on another task than it was trained on.
    (transfer,) = [row for (place, _), row in told.items() if place == "Table 1"]
    assert transfer[3].text.count("synthetic_boolq to synthetic_multirc") == 1


def test_there_is_no_table_where_nothing_was_measured(tmp_path):
    folder = rows_fixture.write(tmp_path, *rows_fixture.rows("my_sweep"))
    assert claims.table(rows.read([str(folder)])) is None
