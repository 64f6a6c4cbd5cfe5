"""Turns of a mixture, counted at once, are those that TensorFlow draws one by one."""

import functools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import mixing
from tests.data.test_stream import PIPELINES, task_of

TASKS = [task_of(PIPELINES["of each example"], f"task_{i}") for i in range(4)]
DRAWS = 3000


def drawn(rates, seed, sample_fn=None):
    """What SeqIO's way of mixing draws."""
    numbers = [tf.data.Dataset.from_tensors(np.int64(i)).repeat() for i in range(len(rates))]
    sample_fn = sample_fn or functools.partial(
        tf.data.Dataset.sample_from_datasets, stop_on_empty_dataset=True
    )
    rates = [float(rate) for rate in rates]
    return np.fromiter(sample_fn(numbers, rates, seed).take(DRAWS).as_numpy_iterator(), np.int64)


@pytest.mark.parametrize(
    ("rates", "seed"),
    [([1.0], 0), ([1, 2.5, 0.3, 1], 3), ([1e-3, 7, 1], 2**31 - 1), ([0.0, 1.0, 2.0], 5)],
)
def test_turns_before_and_after_a_position_are_tensorflows(rates, seed):
    tasks = TASKS[: len(rates)]
    mixture = seqio.Mixture("a_mixture", list(zip(tasks, rates, strict=True)))
    expected = drawn(rates, seed)
    for start in (0, DRAWS - 50):
        counts, rest = mixing.turns(mixture, tasks, seed, start)
        assert counts.tolist() == np.bincount(expected[:start], minlength=len(rates)).tolist()
        found = np.fromiter(rest.take(50).as_numpy_iterator(), np.int64)
        np.testing.assert_array_equal(found, expected[start : start + 50])


def test_draws_at_once_are_the_draws_one_by_one(monkeypatch):
    calls, one = [], mixing._draw_one

    def counted(*args):
        calls.append(args)
        return one(*args)

    rates, seed = [1, 2.5, 0.3, 1], 11
    seeds = next(tf.data.Dataset.random(seed=seed).batch(2).batch(DRAWS).as_numpy_iterator())
    logits = tf.math.log(tf.constant([rates], tf.float32))
    expected = drawn(rates, seed)
    monkeypatch.setattr(mixing, "_draw_one", counted)
    np.testing.assert_array_equal(mixing._draw(seeds, logits), expected)
    assert len(calls) < 5
    # Those near a border are TensorFlow's own.
    monkeypatch.setattr(mixing, "_BORDER", 0.01)
    np.testing.assert_array_equal(mixing._draw(seeds, logits), expected)
    assert len(calls) > 50


def test_another_way_of_mixing_is_followed_draw_by_draw():
    def in_turn(datasets, rates, seed):
        del rates, seed
        return tf.data.Dataset.choose_from_datasets(
            datasets, tf.data.Dataset.range(len(datasets)).repeat()
        )

    mixture = seqio.Mixture("in_turn", [(task, 1) for task in TASKS[:3]], sample_fn=in_turn)
    counts, rest = mixing.turns(mixture, TASKS[:3], 0, 100)
    assert counts.tolist() == [34, 33, 33]
    assert list(rest.take(3).as_numpy_iterator()) == [1, 2, 0]
