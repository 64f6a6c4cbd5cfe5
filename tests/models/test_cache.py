"""Decoding one token at a time with the key/value cache."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from tests import both_layouts
from tests.models.conftest import encode, logits_of, make_model, max_difference


def _cache_call(model, length, batch=4):
    """The call of the whole model with which T5X makes the cache."""
    ones = lambda n: np.ones((batch, n), np.int32)  # noqa: E731
    return lambda p: model.apply(
        {"params": p},
        ones(24),
        ones(length),
        ones(length),
        decode=True,
        enable_dropout=False,
        mutable=["cache"],
    )


def _empty_cache(model, params, length, batch=4):
    """The cache of zeros that such a call makes."""
    shapes = jax.eval_shape(_cache_call(model, length, batch), params)[1]["cache"]
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_call_of_the_whole_model_makes_an_empty_cache(reference, scan_layers):
    model = make_model(scan_layers=scan_layers)
    flat = both_layouts.to_scanned(reference.params) if scan_layers else reference.params
    params = tree.unflatten(flat)
    made = tree.flatten(jax.jit(lambda p: _cache_call(model, 8)(p)[1]["cache"])(params))
    empty = tree.flatten(_empty_cache(model, params, 8))
    assert set(made) == set(empty)
    for path, leaf in made.items():
        np.testing.assert_array_equal(leaf, empty[path], strict=True)


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("max_decode_length", [None, 8])
def test_cached_decoding_equals_teacher_forcing(reference, scan_layers, max_decode_length):
    model, real = make_model(scan_layers=scan_layers), reference.is_target
    flat = both_layouts.to_scanned(reference.params) if scan_layers else reference.params
    params = tree.unflatten(flat)
    inputs, shifted, _ = reference.tokens
    encoded = encode(model, flat, inputs)
    cache = _empty_cache(model, params, 8)

    @jax.jit
    def step(cache, ids):
        logits, variables = model.apply(
            {"params": params, "cache": cache},
            encoded,
            inputs,
            ids,
            ids,
            enable_dropout=False,
            decode=True,
            max_decode_length=max_decode_length,
            mutable=["cache"],
            method=model.decode,
        )
        return logits[:, 0], variables["cache"]

    steps = []
    for position in range(8):
        logits, cache = step(cache, shifted[:, position : position + 1])
        steps.append(np.asarray(logits))
    decoded = np.stack(steps, axis=1)
    assert max_difference(decoded[real], logits_of(model, flat, reference.tokens)[real]) <= 2e-5
    for path, leaf in tree.flatten(cache).items():
        if path.endswith("cache_index"):
            assert (np.asarray(leaf) == 8).all(), path


def test_distant_positions_get_their_own_bias(reference):
    """Over 140 tokens every bucket is used; a wrong query position would show."""
    model = make_model(None)
    params = tree.unflatten(reference.frozen)
    targets = np.random.default_rng(0).integers(2, 256, (2, 140), dtype=np.int32)
    shifted = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    inputs = reference.tokens[0][:2]
    encoded = encode(model, reference.frozen, inputs)
    cache = _empty_cache(model, params, 140, batch=2)

    def step(cache, ids):
        logits, variables = model.apply(
            {"params": params, "cache": cache},
            encoded,
            inputs,
            ids[:, None],
            ids[:, None],
            enable_dropout=False,
            decode=True,
            mutable=["cache"],
            method=model.decode,
        )
        return variables["cache"], logits[:, 0]

    _, decoded = jax.jit(lambda c: jax.lax.scan(step, c, shifted.T))(cache)
    expected = logits_of(model, reference.frozen, (inputs, shifted, targets))
    assert max_difference(np.swapaxes(decoded, 0, 1), expected) <= 2e-5


@pytest.mark.parametrize("scan_layers", [False, True])
def test_cache_has_t5x_names_and_shapes(reference, scan_layers):
    model = make_model(scan_layers=scan_layers)
    flat = both_layouts.to_scanned(reference.params) if scan_layers else reference.params
    call = _cache_call(model, 8)
    cache = tree.flatten(jax.eval_shape(call, tree.unflatten(flat))[1]["cache"])
    names = {
        "cached_key": (4, 4, 8, 8),
        "cached_value": (4, 4, 8, 8),
        "cache_index": (),
    }
    if scan_layers:
        expected = {
            f"decoder/decoder/self_attention/{name}": (2, *shape) for name, shape in names.items()
        }
    else:
        expected = {
            f"decoder/layers_{i}/self_attention/{name}": shape
            for name, shape in names.items()
            for i in range(2)
        }
    assert {path: leaf.shape for path, leaf in cache.items()} == expected


def test_several_tokens_at_once_are_refused(reference):
    model = make_model()
    params = tree.unflatten(reference.params)
    cache = _empty_cache(model, params, 8)
    with pytest.raises(ConfigError, match=r"shape \(4, 2\)', expected shape \(4, 1\)"):
        model.apply(
            {"params": params, "cache": cache},
            reference.tokens[0],
            *(ids[:, :2] for ids in reference.tokens[1:]),
            enable_dropout=False,
            decode=True,
            mutable=["cache"],
        )
