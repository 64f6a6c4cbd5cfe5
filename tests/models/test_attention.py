"""Relative positions and masks."""

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.models import attention, masks
from tests.helpers import tiny_config


def test_bias_is_the_table_at_the_buckets():
    config = tiny_config()
    table = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    positions = np.arange(200, dtype=np.int32)
    for queries in (positions, jnp.asarray(positions)[150:151]):
        bias = attention.relative_position_bias(
            table, queries, positions, config=config, bidirectional=True
        )
        buckets = attention.relative_position_buckets(
            positions[None] - np.asarray(queries)[:, None], bidirectional=True
        )
        np.testing.assert_array_equal(bias[0], table[:, buckets])


def test_masks_join_real_positions():
    tokens = jnp.array([[5, 6, 0], [7, 0, 0]])
    is_real = masks.is_real_position(tokens, 2, None)
    np.testing.assert_array_equal(is_real, [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    prompt_mask = np.array([[0, 1], [1, 1]])
    is_real = masks.is_real_position(tokens, 2, prompt_mask)
    np.testing.assert_array_equal(is_real, [[0, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    mask = masks.pairwise_mask(is_real, is_real)
    assert mask.shape == (2, 1, 5, 5) and mask.dtype == jnp.bool_
    np.testing.assert_array_equal(mask[0, 0], np.outer(is_real[0], is_real[0]))


def test_decoder_mask_is_causal_and_keeps_segments_apart():
    targets = jnp.array([[6, 7, 8, 3, 4, 0]])
    expected = np.tri(6, dtype=bool) & (np.arange(6) < 5)[None] & (np.arange(6) < 5)[:, None]
    np.testing.assert_array_equal(masks.decoder_mask(targets)[0, 0], expected)
    segments = jnp.array([[1, 1, 1, 2, 2, 0]])
    expected[3:5, :3] = False
    np.testing.assert_array_equal(masks.decoder_mask(targets, segments)[0, 0], expected)


def test_a_row_without_keys_attends_uniformly():
    """Masked logits are -1e10, which swallows every real logit: no NaN, equal weights."""
    bias = masks.mask_bias(jnp.zeros((1, 1, 1, 4), bool))
    assert bias.dtype == jnp.float32
    weights = jax.nn.softmax(bias + jnp.array([[[[1.0, -3.0, 7.0, 200.0]]]]))
    np.testing.assert_array_equal(weights, np.full((1, 1, 1, 4), 0.25))
