"""Rows of like length in batches of a few widths."""

import collections

import numpy as np
import pytest

from prompt_tuning.data import widths
from prompt_tuning.data.widths import Size


@pytest.fixture
def few_are_enough(monkeypatch):
    """A program is worth it where it saves one position."""
    monkeypatch.setattr(widths, "_LEAST_SAVED", 1)
    monkeypatch.setattr(widths, "_LEAST_SHARE", 0)


def test_a_width_holds_what_it_is_for_and_little_more():
    for length in range(1, 1025):
        width = widths.width_of(length, 2048)
        assert width >= length and width % 8 == 0
        assert width - length < max(8, length / 4)
    assert len({widths.width_of(n, 512) for n in range(513)}) <= 20
    assert [widths.width_of(n, 300) for n in (0, 65, 257, 299, 300)] == [8, 80, 300, 300, 300]
    assert widths.real_length(np.array([[3, 0, 4, 0], [5, 0, 0, 0]])) == 3
    assert widths.real_length(np.zeros(4, np.int32)) == 0


def _sizes(lengths):
    return [Size(1, widths.width_of(n, 512), 1, 8) for n in lengths]


def test_batches_are_full_and_the_longest_come_first(few_are_enough):
    lengths = np.random.default_rng(0).integers(1, 513, 67).tolist()
    batches = widths.batches_by_size(_sizes(lengths), 8)
    assert sorted(i for rows, _ in batches for i in rows) == list(range(67))
    assert [len(rows) for rows, _ in batches] == [8] * 8 + [3]
    assert all(lengths[i] <= size.inputs for rows, size in batches for i in rows)
    computed = [size.inputs for _, size in batches]
    assert computed == sorted(computed, reverse=True) and len(set(computed)) > 4
    kept = widths.batches_by_size(_sizes(lengths), 8, in_order=True)
    assert [i for rows, _ in kept for i in rows] == list(range(67))
    assert all(lengths[i] <= size.inputs for rows, size in kept for i in rows)


def test_a_handful_of_rows_compiles_nothing():
    lengths = [500] * 64 + [300] * 2 + [60] * 300
    sizes = collections.Counter(size for _, size in widths.batches_by_size(_sizes(lengths), 8))
    assert [size.inputs for size in sizes] == [512, 64]
    # A program that is there already costs nothing; one that is only larger is better than another.
    there = [Size(8, 64, 1, 8), Size(8, 320, 1, 8), Size(8, 512, 1, 8)]
    assert widths.few_sizes({Size(8, 64, 1, 8): 1, Size(8, 80, 1, 8): 1}, there) == {
        Size(8, 64, 1, 8): Size(8, 64, 1, 8),
        Size(8, 80, 1, 8): Size(8, 320, 1, 8),
    }


def test_no_size_is_computed_in_one_that_does_not_hold_it():
    sizes = [Size(8, 512, 1, 8), Size(8, 64, 1, 32), Size(8, 64, 2, 32), Size(8, 32, 1, 8)]
    chosen = widths.few_sizes(dict.fromkeys(sizes, 1))
    assert all(to.holds(size) for size, to in chosen.items())
    assert set(chosen.values()) == {Size(8, 512, 1, 8), Size(8, 64, 2, 32)}


def test_the_last_batch_is_as_small_as_is_worth_a_program():
    def rows(count, batch_size, row_multiple=1):
        batches = widths.batches_by_size(
            [Size(1, 64, 1, 8)] * count, batch_size, row_multiple=row_multiple
        )
        return [size.rows for _, size in batches]

    assert rows(277, 128) == [128, 128, 24]
    assert rows(277, 128, row_multiple=32) == [128, 128, 32]
    # 11 rows would be left out.
    assert rows(277, 32) == [32] * 9
    assert rows(5, 128) == [8] and rows(5, 4, row_multiple=4) == [4, 4]
    assert rows(128, 128) == [128]
    # What is compiled is used.
    [(_, size)] = widths.batches_by_size([Size(1, 64, 1, 8)] * 5, 16, compiled=[Size(16, 64, 1, 8)])
    assert size.rows == 16
