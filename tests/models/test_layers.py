"""Linear maps whose kernels are stored as matrices."""

import jax
import numpy as np
import pytest

from prompt_tuning import partitioning
from prompt_tuning.models import fused_attention, layers
from tests.helpers import tiny_config

SHAPES = {
    "to heads": ((2, 3, 6), {"features": (4, 5), "kernel_axes": ("embed", "joined_kv")}),
    "from heads": (
        (2, 3, 4, 5),
        {"features": (6,), "kernel_axes": ("joined_kv", "embed"), "num_inputs": 2},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_products_are_the_same_with_heads_joined_and_apart(monkeypatch, name):
    shape, attributes = SHAPES[name]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    dense = layers.Dense(tiny_config(), **attributes)
    variables = dense.init(jax.random.key(0), x)

    def on(platform, has_kernel):
        monkeypatch.setattr(partitioning, "platform", lambda: platform)
        monkeypatch.setattr(fused_attention, "has_tpu_kernel", lambda: has_kernel)
        return np.asarray(jax.jit(dense.apply)(variables, x)), str(
            jax.make_jaxpr(dense.apply)(variables, x)
        )

    (stored, joined), (same, also_joined) = on("cpu", False), on("tpu", True)
    apart, other = on("tpu", False)
    assert joined == also_joined != other
    np.testing.assert_array_equal(stored, same)
    np.testing.assert_allclose(stored, apart, rtol=1e-6, atol=1e-6)
