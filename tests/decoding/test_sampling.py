import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.decoding.sampling import TemperatureSample
from prompt_tuning.errors import ConfigError
from tests.decoding import stand_in

T5X_CASES = [case for case in stand_in.CASES if case["fn"] == "temperature_sample"]


def sample(decoder, max_decode_length, **kwargs):
    run = jax.jit(
        lambda cache: TemperatureSample(**kwargs)(
            decoder, cache, batch_size=stand_in.BATCH, max_decode_length=max_decode_length
        )
    )
    ids, scores = run(decoder.cache())
    assert ids.dtype == jnp.int32
    assert scores.dtype == jnp.float32
    return np.asarray(ids), np.asarray(scores)


@pytest.mark.parametrize("case", T5X_CASES, ids=lambda case: case["name"])
def test_t5x_draws_the_same_tokens(case):
    golden = stand_in.load()
    kwargs = {k: v for k, v in case.items() if k not in ("name", "fn", "T", "seed")}
    ids, scores = sample(stand_in.Decoder(), case["T"], seed=case["seed"] or 0, **kwargs)
    np.testing.assert_array_equal(ids, golden[f"{case['name']}/ids"])
    np.testing.assert_allclose(scores, golden[f"{case['name']}/scores"], rtol=1e-5, atol=1e-6)
    stand_in.check_ends(ids)


def test_the_cases_cover_every_way_to_sample():
    assert len(T5X_CASES) == 11
    golden = stand_in.load()
    assert not np.array_equal(golden["all_0/ids"], golden["all_1/ids"])
    assert not golden["topk1/scores"].any()


def one_step(logits, draws=2000, **kwargs):
    """Returns the share of each token among first tokens drawn from `logits` [V]."""
    ids, _ = TemperatureSample(num_decodes=draws, seed=3, **kwargs)(
        lambda ids, cache: (jnp.tile(jnp.asarray(logits)[None], (draws, 1)), cache),
        {},
        batch_size=1,
        max_decode_length=1,
    )
    return np.bincount(np.asarray(ids)[0, :, 0], minlength=len(logits)) / draws


PROBS = np.asarray([0.05, 0.4, 0.3, 0.15, 0.1], np.float32)


def test_all_tokens_are_drawn_by_their_probability():
    np.testing.assert_allclose(one_step(np.log(PROBS), topk=0), PROBS, atol=0.03)


@pytest.mark.parametrize(
    ("kwargs", "kept"),
    [
        ({"topk": 2}, [1, 2]),
        ({"topk": 99}, [0, 1, 2, 3, 4]),
        ({"topk": 0, "topp": 0.39}, [1]),
        ({"topk": 0, "topp": 0.5}, [1, 2]),
        ({"topk": 0, "topp": 0.8}, [1, 2, 3]),
        ({"topk": 0, "topp": 1.0}, [0, 1, 2, 3, 4]),
    ],
)
def test_only_the_likely_tokens_are_drawn(kwargs, kept):
    expected = np.where(np.isin(np.arange(5), kept), PROBS, 0.0)
    shares = one_step(np.log(PROBS), **kwargs)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.035)
    assert set(np.flatnonzero(shares)) == set(kept)


def test_a_low_temperature_sharpens():
    shares = one_step(np.log(PROBS), topk=0, temperature=0.5)
    np.testing.assert_allclose(shares, PROBS**2 / (PROBS**2).sum(), atol=0.03)


@pytest.mark.parametrize(
    "kwargs", [{"topk": 2, "topp": 0.5}, {"topk": -1}, {"topk": 0, "topp": 1.5}]
)
def test_settings_that_contradict_are_refused(kwargs):
    with pytest.raises(ConfigError, match="topk|topp"):
        TemperatureSample(**kwargs)
