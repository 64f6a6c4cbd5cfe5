"""Initial values that methods share."""

import jax
import numpy as np

from prompt_tuning.models.methods.starts import as_pytorch


def test_linear_maps_start_within_one_over_the_root_of_their_inputs():
    x = np.asarray(as_pytorch(16)(jax.random.key(0), (200, 8)))
    assert -0.25 <= x.min() < -0.24 and 0.24 < x.max() <= 0.25
    assert abs(x.mean()) < 0.01
