"""The published numbers against one another, where one follows from others."""

from typing import Any

import pytest

from prompt_tuning.commands.report import published

# T5 1.1, vocabulary 32,128: layers of each stack, width, heads, width of the feed-forward layer; heads are 64 wide.
_ARCHITECTURES = {
    "small": (8, 512, 6, 1024),
    "base": (12, 768, 12, 2048),
    "large": (24, 1024, 16, 2816),
    "xl": (24, 2048, 32, 5120),
    "xxl": (24, 4096, 64, 10240),
}


def _params(layers: int, width: int, heads: int, mlp: int) -> int:
    """Parameters by the shapes: attention, gated feed-forward, norms, relative positions, two embedding tables."""
    attention, feed_forward = 4 * width * heads * 64, 3 * width * mlp
    encoder = layers * (attention + feed_forward + 2 * width) + width + 32 * heads
    decoder = layers * (2 * attention + feed_forward + 3 * width) + width + 32 * heads
    return encoder + decoder + 2 * 32_128 * width


def _rows(name: str) -> Any:
    """The rows of a section's published table."""
    (section,) = [found for found in published.PAPER["sections"] if found["name"] == name]
    return published.table(section).rows


@pytest.mark.parametrize("size", published.SIZES)
def test_table_4_follows_from_the_architecture(size):
    frozen = _params(*_ARCHITECTURES[size])
    width = _ARCHITECTURES[size][1]
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
