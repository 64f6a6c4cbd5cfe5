"""Median, mean and quartiles over templates, and both ways of a mean over data sets."""

import pytest

from prompt_tuning.data.t0 import published
from prompt_tuning.data.templates import origins, scores
from prompt_tuning.data.templates.origins import Origin

# Four templates of one data set, one of each of two rounds.
ORIGINS = {
    **{f"rte_{n}": Origin("rte", "rte", n) for n in "abcd"},
    "anli_a_r1": Origin("anli_r1", "anli", "a"),
    "anli_a_r2": Origin("anli_r2", "anli", "a"),
}
RESULTS = {
    "rte_a": {"accuracy": 50.0, "f1": 1.0},
    "rte_b": {"accuracy": 80.0, "f1": 2.0},
    "rte_c": {"accuracy": 60.0},
    "rte_d": {"em": 10.0, "f1": 30.0},
    "anli_a_r1": {"accuracy": 30.0},
    "anli_a_r2": {"accuracy": 40.0},
    "of no template": {"accuracy": 99.0},
}


@pytest.fixture(autouse=True)
def noted(monkeypatch):
    monkeypatch.setattr(origins, "_ORIGINS", ORIGINS)


def test_the_spread_over_templates():
    found = scores.spreads(RESULTS)
    assert list(found) == ["anli_r1", "anli_r2", "rte"]
    # Without an accuracy, the mean over the metrics.
    assert found["rte"].scores == {"a": 50.0, "b": 80.0, "c": 60.0, "d": 20.0}
    assert (found["rte"].median, found["rte"].mean) == (55.0, 52.5)
    assert found["rte"].quartiles == (42.5, 65.0)
    assert scores.spreads({"of no template": {"accuracy": 1.0}}) == {}


def test_both_conventions_and_what_was_published_beside():
    rows = [
        {"model": "all", "scores": {"rte": 60.0, "anli_r1": 30.0, "anli_r2": 40.0, "other": 1.0}},
        {"model": "one number for the group", "scores": {"rte": 60.0, "anli": 36.0}},
        {"model": "a round is missing", "scores": {"rte": 60.0, "anli_r1": 30.0}},
        {"model": "of other data", "scores": {"other": 1.0}},
    ]
    made = scores.summary(scores.spreads(RESULTS), rows)
    assert made["averages"]["mean"] == {
        "over_columns": pytest.approx((52.5 + 30 + 40) / 3),
        "over_groups": pytest.approx((52.5 + 35) / 2),
    }
    assert made["averages"]["median"]["over_groups"] == pytest.approx((55 + 35) / 2)
    beside = {row["model"]: row["averages"] for row in made["published"]}
    assert beside == {
        "all": {"over_columns": pytest.approx(130 / 3), "over_groups": 47.5},
        "one number for the group": {"over_columns": None, "over_groups": 48.0},
        "a round is missing": {"over_columns": None, "over_groups": None},
    }


def test_averages_that_were_published():
    """The sources average nine groups; T-Few's table 9 has 62.5 over its columns, 67.0 over groups."""
    datasets = list(published.MODELS[0]["scores"])
    groups = {name: "anli" if name.startswith("anli_") else name for name in datasets}
    found = {
        (row["model"], row["statistic"]): scores.averages(row["scores"], groups)
        for row in published.MODELS
    }
    assert len(datasets) == 11
    assert found["T0 11B", "median"] == (
        pytest.approx(62.5, abs=0.05),
        pytest.approx(67.0, abs=0.05),
    )
    expected = {"T0 11B": 65.2, "T0 3B": 55.2, "retrained 3B": 64.4, "retrained 11B": 68.9}
    for model, average in expected.items():
        assert found[model, "mean"] == (None, pytest.approx(average, abs=0.06))
