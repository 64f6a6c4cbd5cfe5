"""T-Few's losses on rows of choices against T-Few's formulas, a choice at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.training.choice_losses import ChoiceLosses, count_choices
from prompt_tuning.training.losses import LossConfig, loss_and_metric_sums, weights_and_normalizer
from prompt_tuning.training.metrics import summarize
from prompt_tuning.training.step import interleave

V = 11
# Tokens of each choice, EOS included, of three examples; the first is right. They differ in number and in length.
CHOICES = ((2, 4), (3, 1, 2), (1, 2))


def _row(lengths, width=12):
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    return np.pad(segments, (0, width - len(segments))).astype(np.int32)


def _batch(seed=0):
    segments = np.stack([*map(_row, CHOICES), _row(())])  # the last row fills up the batch
    targets = np.random.default_rng(seed).integers(2, V, segments.shape) * (segments > 0)
    return {
        "decoder_target_tokens": jnp.asarray(targets),
        "decoder_segment_ids": jnp.asarray(segments),
        "decoder_loss_weights": jnp.asarray(segments == 1).astype(jnp.int32),
    }


def _sums(batch, logits, choices=None, counts=None):
    config = LossConfig(0.0, 0.0, "NUM_REAL_TARGET_TOKENS", choices or ChoiceLosses())
    whole = weights_and_normalizer(batch, config)
    return loss_and_metric_sums(logits, batch, *whole, config, counts or count_choices(batch))[1]


def _expected(batch, logits, length_norm):
    """The three losses, choice by choice, in float64."""
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64)
    targets, segments = map(
        np.asarray, (batch["decoder_target_tokens"], batch["decoder_segment_ids"])
    )
    right, wrong, ranked, right_choices = [], [], [], 0
    for row, lengths in enumerate(CHOICES):
        of = [
            log_p[row, segments[row] == n, targets[row, segments[row] == n]]
            for n in range(1, len(lengths) + 1)
        ]
        right += list(of[0])
        wrong += [p for choice in of[1:] for p in np.exp(choice)]
        scores = np.array([choice.sum() / len(choice) ** length_norm for choice in of])
        ranked.append(np.log(np.exp(scores).sum()) - scores[0])
        right_choices += int(scores.argmax() == 0)
    longest, num = max(map(max, CHOICES)), sum(map(len, CHOICES))
    constant = -np.log(1.01) * (num * longest - len(wrong))
    unlikelihood = (np.sum(-np.log(1 - np.array(wrong) + 0.01)) + constant) / len(wrong)
    return -np.mean(right), unlikelihood, np.mean(ranked), right_choices


@pytest.mark.parametrize("length_norm", [1.0, 0.0])
def test_losses_are_t_fews_also_with_choices_of_different_numbers(length_norm):
    batch = _batch()
    logits = 3 * jax.random.normal(jax.random.key(0), (4, 12, V))
    config = ChoiceLosses(unlikelihood=0.5, length_normalized=2.0, length_norm=length_norm)
    sums = {name: float(x) for name, x in _sums(batch, logits, config).items()}
    lm, unlikelihood, ranked, right_choices = _expected(batch, logits, length_norm)
    assert sums["lm_loss"] == pytest.approx(lm, rel=1e-5)
    assert sums["unlikelihood_loss"] == pytest.approx(unlikelihood, rel=1e-5)
    assert sums["length_normalized_loss"] == pytest.approx(ranked, rel=1e-5)
    assert sums["loss"] == pytest.approx(lm + 0.5 * unlikelihood + 2 * ranked, rel=1e-5)
    assert sums["right_choices"] == right_choices and sums["sequences"] == 3
    assert summarize(sums, 1)["choice_accuracy"] == pytest.approx(right_choices / 3)


def test_a_model_that_cannot_tell_choices_apart_is_never_right():
    sums = _sums(_batch(), jnp.zeros((4, 12, V)), ChoiceLosses(length_norm=1.0))
    assert float(sums["right_choices"]) == 0
    assert float(sums["length_normalized_loss"]) == pytest.approx((np.log(2) * 2 + np.log(3)) / 3)


def test_microbatches_add_up_to_the_whole_batch():
    batch, logits = _batch(), jax.random.normal(jax.random.key(1), (4, 12, V))
    config = LossConfig(0.0, 0.0, "NUM_REAL_TARGET_TOKENS", ChoiceLosses())
    weights, normalizer = weights_and_normalizer(batch, config)
    counts = count_choices(batch)
    whole = loss_and_metric_sums(logits, batch, weights, normalizer, config, counts)[1]
    parts = interleave((batch, weights, logits), 2)
    added: dict = {}
    for m in range(2):
        part, part_weights, part_logits = jax.tree.map(lambda x, m=m: x[m], parts)
        found = loss_and_metric_sums(part_logits, part, part_weights, normalizer, config, counts)[1]
        added = {name: added.get(name, 0.0) + float(x) for name, x in found.items()}
    for name, value in whole.items():
        assert added[name] == pytest.approx(float(value), rel=1e-5), name


def test_gradients_are_finite_where_wrong_tokens_are_certain_and_rows_are_empty():
    batch = _batch()
    sure = 200.0 * jax.nn.one_hot(batch["decoder_target_tokens"], V)
    gradient = jax.grad(lambda logits: _sums(batch, logits)["loss"])(sure)
    assert bool(jnp.isfinite(gradient).all())


def test_negative_coefficients_are_refused():
    with pytest.raises(ConfigError, match="losses.ChoiceLosses.unlikelihood"):
        ChoiceLosses(unlikelihood=-1.0)
