"""Loss terms and normalisers against T5X's."""

import re

import jax.numpy as jnp
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.training.losses import (
    LossConfig,
    loss_and_metric_sums,
    weights_and_normalizer,
)


def test_metric_sums_count_tokens_sequences_and_correct_answers():
    logits = jnp.zeros((2, 3, 5)).at[0, 0, 4].set(9.0).at[0, 1, 2].set(9.0)
    batch = {
        "decoder_target_tokens": jnp.array([[4, 1, 0], [0, 0, 0]]),
        "decoder_loss_weights": jnp.array([[1, 1, 0], [0, 0, 0]]),
    }
    config = LossConfig()
    _, sums = loss_and_metric_sums(logits, batch, *weights_and_normalizer(batch, config), config)
    assert {k: float(sums[k]) for k in ("correct", "target_tokens", "all_tokens", "sequences")} == {
        "correct": 1.0,
        "target_tokens": 2.0,
        "all_tokens": 6.0,
        "sequences": 1.0,
    }


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss_normalizing_factor": "NUM_REAL_TOKENS"}, "Closest matches: NUM_REAL_TARGET_TOKENS"),
        ({"loss_normalizing_factor": 0}, "LOSS_NORMALIZING_FACTOR is out of range: got 0"),
        ({"label_smoothing": 1.0}, "LABEL_SMOOTHING is out of range: got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        LossConfig(**settings)
