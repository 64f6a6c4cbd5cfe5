"""Whose turn it is in a mixture: counted for a million draws in a second, as TensorFlow draws one by one in twenty."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

# Draws that are made at a time, and those on which ours are compared with TensorFlow's.
_DRAWS, _COMPARED = 65_536, 256
# A draw this close to the border of two tasks is left to TensorFlow, whose logarithms may round otherwise.
_BORDER = 1e-6
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


def turns(
    mixture: seqio.Mixture, tasks: Sequence[seqio.Task], seed: int, start: int
) -> tuple[np.ndarray, tf.data.Dataset]:
    """Returns how often it was each task's turn before `start`, and the turns from there on.

    Args:
      mixture: A mixture.
      tasks: Those of its tasks that are mixed, in its order.
      seed: Seed of the mixing.
      start: Draws to leave out.

    Returns:
      Counts [tasks] int64, and an endless dataset of indices of `tasks`, int64.
    """
    rates = [mixture.get_rate(task) for task in tasks]
    # Whose turn it is does not depend on the examples: numbers are mixed in their place.
    numbers = [tf.data.Dataset.from_tensors(np.int64(i)).repeat() for i in range(len(tasks))]
    drawn = mixture._sample_fn(numbers, rates, seed)
    expected = np.fromiter(drawn.take(_COMPARED).as_numpy_iterator(), np.int64)
    logits = tf.math.log(tf.constant([rates], tf.float32))
    seeds = tf.data.Dataset.random(seed=seed).batch(2)
    ours = _draw(next(seeds.batch(_COMPARED).as_numpy_iterator()), logits)
    is_as_expected = np.array_equal(ours, expected)
    counts = np.zeros(len(tasks), np.int64)
    # A way of mixing of the user's, a rate of 0, or another TensorFlow: draw by draw.
    source = seeds if is_as_expected else drawn
    for block in source.take(start).batch(_DRAWS).as_numpy_iterator():
        indices = _draw(block, logits) if is_as_expected else block
        counts += np.bincount(indices, minlength=len(tasks))
    if not is_as_expected:
        return counts, drawn.skip(start)
    return counts, seeds.skip(start).map(lambda pair: _draw_one(logits, pair))


def _draw_one(logits: Any, seed: Any) -> Any:
    """What `tf.data.Dataset.sample_from_datasets` draws with a seed [2] int64."""
    draw = tf.raw_ops.StatelessMultinomial(
        logits=logits, num_samples=1, seed=seed, output_dtype=tf.int64
    )
    return draw[0, 0]


def _draw(seeds: np.ndarray, logits: Any) -> np.ndarray:
    """Returns `_draw_one` of each seed [n, 2] int64, as [n] int64.

    Source: TensorFlow's `StatelessMultinomial` on a CPU: a key from the seed, a number from the key (both by Philox
      4x32-10, Salmon et al. 2011), the first task whose cumulated rate is above it.
    """
    seeds = seeds.astype(np.uint64)
    zeros = np.zeros(len(seeds), np.uint64)
    key = (zeros + np.uint64(0x3EC8F720), zeros + np.uint64(0x02461E29))
    first, second = seeds[:, 0], seeds[:, 1]
    mixed = _philox((first & _LOW, first >> _HALF, second & _LOW, second >> _HALF), key)
    bits = _philox((zeros, zeros, mixed[2], mixed[3]), (mixed[0], mixed[1]))
    # 52 random bits behind the exponent of [1, 2).
    mantissa = ((bits[0] & np.uint64(0xFFFFF)) << _HALF) | bits[1]
    unit = (mantissa | np.uint64(1023) << np.uint64(52)).view(np.float64) - 1.0
    weights = np.exp(np.asarray(logits, np.float64)[0])
    borders = np.cumsum(weights / weights.sum())
    found = np.searchsorted(borders[:-1], unit, side="right").astype(np.int64)
    near = np.abs(unit[:, None] - borders[None, :-1]).min(axis=1, initial=1.0) < _BORDER
    for i in np.flatnonzero(near):
        found[i] = int(_draw_one(logits, tf.constant(seeds[i].astype(np.int64))))
    return found


def _philox(counter: tuple[np.ndarray, ...], key: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Philox 4x32-10 of 32-bit numbers, each held in a uint64."""
    for _ in range(10):
        a = counter[0] * np.uint64(0xD2511F53)
        b = counter[2] * np.uint64(0xCD9E8D57)
        counter = (
            b >> _HALF ^ counter[1] ^ key[0],
            b & _LOW,
            a >> _HALF ^ counter[3] ^ key[1],
            a & _LOW,
        )
        key = (key[0] + np.uint64(0x9E3779B9) & _LOW, key[1] + np.uint64(0xBB67AE85) & _LOW)
    return counter
