"""The published numbers against one another, where one follows from others."""

import pytest

from prompt_tuning.commands.report import paper_numbers

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


@pytest.mark.parametrize("size", paper_numbers.SIZES)
def test_table_4_follows_from_the_architecture(size):
    frozen = _params(*_ARCHITECTURES[size])
    width = _ARCHITECTURES[size][1]
    assert paper_numbers.FROZEN_PARAMS[size] == frozen
    for length in paper_numbers.TABLE_4_LENGTHS:
        numbers = paper_numbers.table_4(size, length)
        assert numbers["trainable"].value == length * width
        assert numbers["total"].value == frozen + length * width
        share = 100 * length * width / (frozen + length * width)
        assert numbers["percent"].value == pytest.approx(share, rel=1e-12)


def test_misprints_are_marked_and_not_repeated():
    printed = {}
    for size in paper_numbers.SIZES:
        for length in paper_numbers.TABLE_4_LENGTHS:
            for column, number in paper_numbers.table_4(size, length).items():
                if number.printed:
                    printed[size, length, column] = number
    assert set(printed) == {
        ("small", 20, "trainable"),
        ("small", 20, "total"),
        ("large", 100, "percent"),
        ("xxl", 50, "total"),
    }
    for number in printed.values():
        assert float(number.printed.replace(",", "")) != pytest.approx(number.value, rel=1e-6)


def test_table_1_differences():
    assert len(paper_numbers.TABLE_1) == 7
    for _, model, prompt, difference in paper_numbers.TABLE_1.values():
        assert prompt.value - model.value == pytest.approx(difference, abs=1e-9)


def test_table_3_ends_with_the_mean_over_tasks():
    *tasks, (_, *superglue) = paper_numbers.TABLE_3.values()
    assert len(tasks) == 8
    for column, (mean,) in enumerate(superglue, start=1):
        scores = [sum(task[column]) / len(task[column]) for task in tasks]
        # Best: the printed scores give 91.06, the paper has 91.0.
        assert sum(scores) / 8 == pytest.approx(mean, abs=0.06)


def test_table_5_is_in_seconds():
    assert paper_numbers.TABLE_5["large", 100] == 3600 + 23 * 60 + 36
    assert paper_numbers.TABLE_5["xl", 1] == 3 * 60 + 37
    assert ("small", 20) not in paper_numbers.TABLE_5
    assert len(paper_numbers.TABLE_5) == 15


def test_figure_1_has_every_size_with_a_deviation():
    assert set(paper_numbers.FIGURE_1) == {"prompt", "model", "multitask", "spot"}
    for row in paper_numbers.FIGURE_1.values():
        assert tuple(row) == paper_numbers.SIZES
        assert all(0 < number.value < 100 and number.sd for number in row.values())
