"""Batches of like length hold the stream's examples, in an order that follows from the seed and the window's number."""

import numpy as np

from prompt_tuning.data.grouping import grouped

WINDOW, BATCH = 12, 3


def windows(count):
    """Windows of 12 examples, each known by its number, with inputs of 1 to 8 tokens."""
    rng = np.random.default_rng(0)
    for i in range(count):
        sizes = rng.integers(1, 9, WINDOW)
        number = np.arange(i * WINDOW, (i + 1) * WINDOW)
        yield {
            "encoder_input_tokens": (np.arange(8) < sizes[:, None]).astype(np.int32),
            "decoder_target_tokens": np.ones((WINDOW, 1), np.int32),
            "number": number,
        }


def test_each_window_is_cut_into_batches_of_like_length():
    found = list(grouped(windows(5), BATCH, seed=1))
    assert len(found) == 20
    strictly_ordered = 0
    for i in range(5):
        batches = found[4 * i : 4 * i + 4]
        numbers = np.concatenate([batch["number"] for batch in batches])
        assert sorted(numbers) == list(range(i * WINDOW, (i + 1) * WINDOW))
        ranges = sorted(
            (sizes.min(), sizes.max())
            for sizes in (batch["encoder_input_tokens"].sum(axis=1) for batch in batches)
        )
        assert all(low[1] <= high[0] for low, high in zip(ranges, ranges[1:], strict=False))
        shortest = [batch["encoder_input_tokens"].sum() for batch in batches]
        strictly_ordered += shortest == sorted(shortest)
    # The order of lengths is not the order of batches.
    assert strictly_ordered < 5


def test_a_later_window_comes_out_as_in_the_whole_stream():
    whole = list(grouped(windows(5), BATCH, seed=1))
    rest = list(grouped((w for i, w in enumerate(windows(5)) if i >= 3), BATCH, seed=1, first=3))
    assert len(rest) == 8
    for ours, expected in zip(rest, whole[12:], strict=True):
        for name, x in ours.items():
            np.testing.assert_array_equal(x, expected[name])
    other = list(grouped(windows(5), BATCH, seed=2))
    assert any((a["number"] != b["number"]).any() for a, b in zip(whole, other, strict=True))
