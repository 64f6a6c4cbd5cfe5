"""Loss terms and normalisers against T5X's."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.training.losses import (
    LossConfig,
    loss_and_metric_sums,
    weights_and_normalizer,
)
from tests.helpers import GOLDEN

CASE = re.compile(
    r"ls(?P<smoothing>[\d.]+)_z(?P<z>[\d.e-]+)_lnf(?P<factor>\w+(\.\d+)?)/loss_z_weightsum"
)
LOSS_TOLERANCE = 1e-6
GRAD_TOLERANCE = 1e-6


def _config(match: re.Match) -> LossConfig:
    factor = match["factor"]
    try:
        factor = float(factor)
    except ValueError:
        factor = None if factor == "None" else factor
    return LossConfig(float(match["z"]), float(match["smoothing"]), factor)


def test_every_golden_case_of_loss_z_loss_and_gradient():
    golden = np.load(GOLDEN / "losses.npz")
    batch = {
        "decoder_target_tokens": jnp.asarray(golden["targets"]),
        "decoder_loss_weights": jnp.asarray(golden["weights"]),
    }
    compared = 0
    for name in golden:
        match = CASE.fullmatch(name)
        if not match:
            continue
        config = _config(match)

        def loss_fn(logits, config=config):
            weights, normalizer = weights_and_normalizer(batch, config)
            total, sums = loss_and_metric_sums(logits, batch, weights, normalizer, config)
            return total, (sums["z_loss"], jnp.sum(weights))

        (loss, (z_loss, weight_sum)), grad = jax.value_and_grad(loss_fn, has_aux=True)(
            jnp.asarray(golden["logits"])
        )
        np.testing.assert_allclose(
            np.asarray([loss, z_loss, weight_sum]), golden[name], rtol=LOSS_TOLERANCE, err_msg=name
        )
        expected = golden[name.replace("loss_z_weightsum", "grad_logits")]
        np.testing.assert_allclose(grad, expected, atol=GRAD_TOLERANCE * np.abs(expected).max())
        compared += 1
    assert compared == sum("loss_z_weightsum" in name for name in golden) >= 10


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
        ({"loss_normalizing_factor": 0}, "LOSS_NORMALIZING_FACTOR out of range: got 0"),
        ({"label_smoothing": 1.0}, "LABEL_SMOOTHING out of range: got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        LossConfig(**settings)
