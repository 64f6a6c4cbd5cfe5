"""The published numbers against one another, where one follows from others."""

from typing import Any

import pytest

from prompt_tuning.commands.report import published
from tests.configs.test_models import TOTALS


def _rows(name: str) -> Any:
    """The rows of a section's published table."""
    (section,) = [found for found in published.PAPER["sections"] if found["name"] == name]
    return published.table(section).rows


# T5 1.1, whose parameters are counted in tests/configs/test_models.py.
@pytest.mark.parametrize(
    ("size", "width"),
    [("small", 512), ("base", 768), ("large", 1024), ("xl", 2048), ("xxl", 4096)],
)
def test_table_4_follows_from_the_architecture(size, width):
    frozen = TOTALS[f"t5_1_1_{size}"]
    assert published.SIZES[size]["frozen"] == frozen
    for length in published.LENGTHS:
        numbers = published.table_4(size, length)
        assert numbers["trainable"].sort == length * width
        assert numbers["total"].sort == frozen + length * width
        share = 100 * length * width / (frozen + length * width)
        assert numbers["percent"].sort == pytest.approx(share, rel=1e-12)


def test_misprints_are_marked_and_not_repeated():
    printed = {
        (size, length, column): (cell, cell.note.removeprefix("misprint: the paper has "))
        for size in published.SIZES
        for length in published.LENGTHS
        for column, cell in published.table_4(size, length).items()
        if cell.note.startswith("misprint")
    }
    assert set(printed) == {
        ("small", 20, "trainable"),
        ("small", 20, "total"),
        ("large", 100, "percent"),
        ("xxl", 50, "total"),
    }
    for cell, number in printed.values():
        assert float(number.replace(",", "")) != pytest.approx(cell.sort, rel=1e-6)


def test_table_1_differences():
    assert len(_rows("table_1")) == 7
    for _, _, model, prompt, difference in _rows("table_1"):
        assert prompt.sort - model.sort == pytest.approx(difference.sort, abs=1e-9)


def test_table_3_ends_with_the_mean_over_tasks():
    *tasks, superglue = _rows("table_3")
    assert len(tasks) == 8
    for column in (2, 3, 4):
        # Best: the printed scores give 91.06, the paper has 91.0.
        mean = sum(task[column].sort for task in tasks) / 8
        assert mean == pytest.approx(superglue[column].sort, abs=0.06)


def test_table_5_is_in_seconds():
    times = {row[0].text: [cell.sort for cell in row[1:]] for row in _rows("table_5")}
    assert times["Large"][0] == 3600 + 23 * 60 + 36
    assert times["XL"][3] == 3 * 60 + 37
    assert times["Small"][2] is None
    assert sum(time is not None for row in times.values() for time in row) == 15


def test_figure_1_has_every_size_with_a_deviation():
    rows = _rows("figure_1")[:4]
    assert len({row[0].text for row in rows}) == 4
    for row in rows:
        assert len(row) == 1 + len(published.SIZES)
        assert all(0 < cell.sort < 100 and " ± " in cell.text for cell in row[1:])


def test_the_number_a_cell_is_sorted_by():
    shown = {"79.2 ± 0.9": 79.2, "99.0 / 98.0": 98.5, "-1.8": -1.8, "9:05": 545, "on, off": None}
    assert {text: published._cell(text).sort for text in shown} == shown
