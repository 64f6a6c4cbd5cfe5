"""The model's ways of decoding, over the tiny module with random weights; T5X's own results are in tests/decoding."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.decoding.beam_search import BeamSearch, brevity_penalty
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.decoding.sampling import TemperatureSample
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.prompts.config import PromptConfig
from tests import both_layouts
from tests.helpers import tiny_config

BATCH, LENGTH = 24, 6
GREEDY = Greedy()


def make_model(decode_fn: Any = GREEDY, *, scan_layers=False, **kwargs):
    module = T5(tiny_config(scan_layers=scan_layers), PromptConfig(length=3))
    return EncoderDecoderModel(module, None, None, decode_fn=decode_fn, **kwargs)


@functools.cache
def make_params(*, scan_layers=False):
    """Random weights with a head that often ends sequences, so that these differ in length."""
    flat = tree.flatten(jax.jit(make_model().init)(jax.random.key(0)))
    head = flat["decoder/logits_dense/kernel"]
    flat["decoder/logits_dense/kernel"] = head.at[:, EOS_ID].multiply(4.0)
    return tree.unflatten(both_layouts.to_scanned(flat) if scan_layers else flat)


@functools.cache
def make_batch():
    tokens = np.random.default_rng(0).integers(2, 256, (BATCH, 7)).astype(np.int32)
    tokens[::3, 4:] = 0
    return {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.zeros((BATCH, LENGTH), np.int32),
    }


@functools.cache
def predict(decode_fn, *, scan_layers=False):
    model = make_model(decode_fn, scan_layers=scan_layers)
    ids, aux = jax.jit(model.predict)(make_params(scan_layers=scan_layers), make_batch())
    assert ids.shape == (BATCH, LENGTH) and aux["scores"].shape == (BATCH,)
    return np.asarray(ids), np.asarray(aux["scores"])


def target_batch(ids):
    inputs = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
    weights = (ids > 0).astype(np.int32)
    targets = {"decoder_input_tokens": inputs, "decoder_target_tokens": ids}
    return {**make_batch(), **targets, "decoder_loss_weights": weights}


def ended(ids):
    return (ids == EOS_ID).any(axis=1)


def lengths(ids):
    return (ids > 0).sum(axis=1)


@pytest.mark.parametrize(
    "decode_fn",
    [Greedy(), BeamSearch(alpha=0.6), TemperatureSample(topk=0, num_decodes=3)],
    ids=lambda fn: type(fn).__name__,
)
def test_scores_are_those_of_teacher_forcing(decode_fn):
    """A cache row that belonged to another sequence would score differently."""
    ids, scores = predict(decode_fn)
    likelihoods = np.asarray(jax.jit(make_model().score)(make_params(), target_batch(ids)))
    alpha = getattr(decode_fn, "alpha", 0.0)
    # Sequences that no EOS closes are scored without the penalty.
    penalty = np.where(ended(ids), brevity_penalty(jnp.asarray(lengths(ids)), alpha), 1.0)
    assert 0 < ended(ids).sum() and len(set(lengths(ids))) > 1
    np.testing.assert_allclose(scores, likelihoods / penalty, rtol=1e-4, atol=1e-4)


def test_one_beam_is_greedy_where_eos_is_first_or_not_second():
    """One beam also notes the end of the second-best continuation, so that the two differ where that is EOS."""
    greedy, greedy_scores = predict(Greedy())
    beam, beam_scores = predict(BeamSearch(num_decodes=1, alpha=0.0))
    logits = np.asarray(jax.jit(make_model().apply)(make_params(), target_batch(greedy)))
    second_is_eos = np.argsort(logits, axis=-1)[..., -2] == EOS_ID
    agree = ~(second_is_eos & (np.arange(LENGTH) < lengths(greedy)[:, None])).any(axis=1)
    assert ended(greedy[agree]).any() and not ended(greedy[agree]).all()
    np.testing.assert_array_equal(beam[agree], greedy[agree])
    np.testing.assert_allclose(beam_scores[agree], greedy_scores[agree], rtol=1e-5)


def test_four_beams_find_nothing_less_likely_than_greedy():
    greedy, greedy_scores = predict(Greedy())
    beam, beam_scores = predict(BeamSearch(alpha=0.0))
    both = ended(greedy) & ended(beam)
    assert both.sum() >= 5
    assert (beam_scores[both] >= greedy_scores[both] - 1e-5).all()
    assert (beam_scores[both] > greedy_scores[both] + 1e-3).any()


def test_draws_repeat_with_their_seed_only():
    nucleus = TemperatureSample(topk=0, topp=0.9)
    model = make_model(nucleus)
    again = np.asarray(jax.jit(model.predict)(make_params(), make_batch())[0])
    np.testing.assert_array_equal(again, predict(nucleus)[0])
    other = predict(dataclasses.replace(nucleus, seed=1))[0]
    assert (other != again).any() and (again != predict(Greedy())[0]).any()


@pytest.mark.parametrize(
    "decode_fn",
    [Greedy(), BeamSearch(alpha=0.6), TemperatureSample(topk=0, num_decodes=3)],
    ids=lambda fn: type(fn).__name__,
)
def test_scanned_layers_decode_the_same(decode_fn):
    ids, scores = predict(decode_fn)
    scanned_ids, scanned_scores = predict(decode_fn, scan_layers=True)
    np.testing.assert_array_equal(scanned_ids, ids)
    np.testing.assert_allclose(scanned_scores, scores, rtol=1e-4)


def test_the_model_says_how_many_sequences():
    assert make_model(BeamSearch()).decoder.num_decodes == 4
    assert make_model(BeamSearch(alpha=0.1), num_decodes=2).decoder == BeamSearch(2, 0.1)
    assert make_model(BeamSearch).decoder == BeamSearch(), "T5X's gin files name it without a call"
    assert make_model(num_decodes=1).decoder == Greedy()
    with pytest.raises(ConfigError, match="Greedy decodes one sequence.*beam_search"):
        make_model(num_decodes=2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: BeamSearch(num_decodes=0), "beam_search.num_decodes"),
        (lambda: TemperatureSample(num_decodes=True), "temperature_sample.num_decodes"),
        (lambda: TemperatureSample(topp=0.9), "topk = 0"),
        (lambda: TemperatureSample(temperature=-1.0), "temperature is out of range: got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused_where_they_are_configured(make, text):
    with pytest.raises(ConfigError, match=text):
        make()
