"""What maps prompts from one model to another, where the map is known."""

import numpy as np
import pytest

from prompt_tuning.commands.recycle.mapping import linear, network

RNG = np.random.default_rng(0)


def _normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("words", [40, 5])
def test_least_squares_find_the_map_and_are_linear_combinations(words):
    source, matrix, prompt = _normal(words, 8), _normal(8, 6), _normal(3, 8)
    target = source @ matrix
    # Each row of the prompt as the smallest combination of embeddings, the authors' lin-comb.
    weights = np.linalg.lstsq(source.T.astype(np.float64), prompt.T.astype(np.float64), rcond=None)
    np.testing.assert_allclose(linear(prompt, source, target), weights[0].T @ target, atol=1e-5)
    if words >= 8:
        np.testing.assert_allclose(linear(prompt, source, target), prompt @ matrix, atol=1e-5)
        # So it is only nearly where the target is only nearly a linear map of the source.
        noisy = linear(prompt, source, target + 0.1 * _normal(words, 6))
        assert 1e-3 < np.abs(noisy - prompt @ matrix).max() < 1


@pytest.mark.loose_numerics(reason="optax adds Python floats to integer arrays")
def test_the_network_learns_the_map_and_is_the_same_every_time():
    source, matrix, prompt = _normal(2000, 6), _normal(6, 8), _normal(50, 6)
    target, right = np.abs(source @ matrix), np.abs(prompt @ matrix)
    mapped = network(prompt, source, target)
    np.testing.assert_array_equal(mapped, network(prompt, source, target))
    wrong = [np.square(x - right).mean() for x in (mapped, linear(prompt, source, target))]
    assert wrong[0] < 0.5 * wrong[1], wrong
    assert network(prompt[:2], source[:7], target[:7]).shape == (2, 8)
