"""Batches of examples of like length, from windows of a stream."""

import itertools
from collections.abc import Iterator, Mapping

import numpy as np


def grouped(
    windows: Iterator[Mapping[str, np.ndarray]], batch_size: int, *, seed: int, first: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the examples of each window in batches of like length, the batches of a window in random order.

    Each example of the stream comes once, at most a window away from its place. The order follows from the windows and
    the seed alone, so it is the same in every process and continues at any window.

    Args:
      windows: Features [W * B, …] of W batches each.
      batch_size: B. Unit: examples.
      seed: Seed of the order of batches.
      first: Number of the first window, counted from the start of the stream.
    """
    for number, window in zip(itertools.count(first), windows, strict=False):
        order = _by_length(window).reshape(-1, batch_size)
        # Without this, losses would rise and fall with the length, once a window.
        np.random.default_rng([seed, number]).shuffle(order)
        for rows in order:
            yield {name: x[rows] for name, x in window.items()}


def _by_length(window: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows [W * B] by length of their inputs, then of their targets, then as they came."""
    inputs = (window["encoder_input_tokens"] > 0).sum(axis=1)
    targets = (window["decoder_target_tokens"] > 0).sum(axis=1)
    return np.lexsort((targets, inputs))
