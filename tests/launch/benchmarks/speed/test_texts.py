"""The lengths are those of the data sets that they stand for."""

import numpy as np
import pytest

from prompt_tuning.launch.benchmarks.speed import texts


@pytest.mark.parametrize(("data_set", "limit", "mean"), [("rte", 320, 79.0), ("boolq", 512, 154.7)])
def test_lengths_have_the_data_sets_mean(data_set, limit, mean):
    lengths = texts.lengths(data_set, 128, limit)
    assert lengths.mean() == pytest.approx(mean, rel=0.01)
    assert lengths.max() <= limit and lengths.min() >= 22
    # Drawn, not sorted: a batch holds short and long ones.
    assert (np.diff(lengths) < 0).any()


def test_ids_end_with_eos_and_hold_none_before():
    rows = texts.token_ids(np.array([3, 7]), 100)
    assert [len(row) for row in rows] == [3, 7]
    for row in rows:
        assert row[-1] == texts.EOS_ID and (row[:-1] > 2).all()
