import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.decoding.cache import expand_batch, gather_copies


@pytest.mark.parametrize("batch_axis", [0, 1])
def test_rows_are_repeated_and_reordered_within_themselves(batch_axis):
    rows = jnp.arange(2 * 3, dtype=jnp.float32).reshape(2, 3)
    leaf = rows if batch_axis == 0 else jnp.stack([rows, rows + 100.0])
    cache = {"key": leaf, "cache_index": jnp.ones((4,) * batch_axis, jnp.int32)}
    expanded = expand_batch(cache, 2, 3, batch_axis=batch_axis)
    np.testing.assert_array_equal(expanded["cache_index"], cache["cache_index"])
    marked = {
        **expanded,
        # Copies are told apart by 0.1 for each.
        "key": expanded["key"] + jnp.asarray([0.0, 0.1, 0.2, 0.0, 0.1, 0.2])[:, None]
        if batch_axis == 0
        else expanded["key"] + jnp.asarray([0.0, 0.1, 0.2, 0.0, 0.1, 0.2])[None, :, None],
    }
    copy = jnp.asarray([[2, 0, 0], [1, 1, 2]], jnp.int32)
    got = gather_copies(marked, copy, batch_axis=batch_axis)
    assert jax.tree.map(jnp.shape, got) == jax.tree.map(jnp.shape, expanded)
    first = np.asarray(got["key"] if batch_axis == 0 else got["key"][0])
    np.testing.assert_allclose(first[:, 0], [0.2, 0.0, 0.0, 3.1, 3.1, 3.2], rtol=1e-6)
    if batch_axis == 1:
        np.testing.assert_allclose(got["key"][1], first + 100.0, rtol=1e-6)
    np.testing.assert_array_equal(got["cache_index"], cache["cache_index"])


def test_a_cache_of_another_batch_size_is_not_expanded():
    with pytest.raises(AssertionError):
        expand_batch({"key": jnp.ones((3, 2))}, 2, 4)
