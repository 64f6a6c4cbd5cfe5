"""Where dropout applies, which positions share a mask, and that a key fixes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from prompt_tuning import tree
from prompt_tuning.models import chunked_attention
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.training.losses import token_cross_entropy
from tests import both_layouts
from tests.models.conftest import logits_of, make_model, max_difference

RATE = 0.4


@pytest.fixture(scope="module")
def outputs(reference):
    """Every dropout's outputs in one training call, by module path; nothing is padded."""
    inputs = np.where(reference.tokens[0] > 0, reference.tokens[0], 7)
    targets = np.where(reference.tokens[2] > 0, reference.tokens[2], 7)
    model = make_model(dropout_rate=RATE)

    @jax.jit
    def call(params, rng):
        return model.apply(
            {"params": params},
            inputs,
            targets,
            targets,
            rngs={"dropout": rng},
            capture_intermediates=lambda module, _: isinstance(module, nn.Dropout),
            mutable=["intermediates"],
        )

    _, variables = call(tree.unflatten(reference.params), jax.random.key(3))
    return tree.flatten(variables["intermediates"])


def test_masks_are_shared_along_length_and_queries(outputs):
    calls = 0
    for path, values in outputs.items():
        for value in values:
            is_zero = np.asarray(value) == 0
            if is_zero.ndim == 4:  # attention weights [B, N, Q, K]: the last query sees every key
                is_allowed = np.ones(is_zero.shape[-2:], bool)
                if "/self_attention/" in path:
                    is_allowed = np.tri(is_zero.shape[-1], dtype=bool)
                is_zero = np.where(is_allowed, is_zero, is_zero[..., -1:, :])
            assert (is_zero == is_zero[..., -1:, :]).all(), path
            dropped = is_zero[..., -1, :].mean()
            assert 0.2 < dropped < 0.6, (path, dropped)
            calls += 1
    # Input and output of both stacks; in a layer attention, post-attention, MLP and post-MLP, and two more for
    # cross-attention.
    assert calls == 2 * 2 + 2 * 4 + 2 * 6
    # The first one of the encoder sees the prompt in front of the tokens.
    assert outputs["encoder/Dropout_0/__call__"][0].shape == (4, 6 + 24, 32)


def test_sites_draw_different_masks(outputs):
    masks = set()
    for path, values in outputs.items():
        for value in values:
            if value.shape[-1] == 32 and value.ndim == 3:
                masks.add((np.asarray(value)[:, -1] == 0).tobytes())
            assert value.shape[-1] > 0, path
    # Two of each stack and of each encoder layer, three of each decoder layer.
    assert len(masks) == 2 * 2 + 2 * 2 + 2 * 3


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_key_fixes_the_masks(reference, scan_layers):
    model = make_model(dropout_rate=RATE, scan_layers=scan_layers, remat_policy="full")
    params = both_layouts.to_scanned(reference.params) if scan_layers else reference.params
    params = tree.unflatten(params)
    apply = jax.jit(
        lambda rng: model.apply({"params": params}, *reference.tokens, rngs={"dropout": rng})
    )
    first, again, other = (apply(jax.random.key(seed)) for seed in (1, 1, 2))
    assert max_difference(first, again) == 0.0
    assert max_difference(first, other) > 0.1


@pytest.mark.parametrize(
    ("by_chunks", "config"), [(False, {}), (True, {"scan_layers": True, "remat_policy": "full"})]
)
def test_trimmed_rows_drop_what_whole_ones_do(monkeypatch, reference, by_chunks, config):
    monkeypatch.setattr(chunked_attention, "pays", lambda: by_chunks)
    model = make_model(dropout_rate=RATE, **config)
    flat = both_layouts.to_scanned(reference.params) if config else reference.params
    cut = [x[:, :width] for x, width in zip(reference.tokens, (17, 7, 7), strict=True)]
    columns = [x.shape[1] - y.shape[1] for x, y in zip(reference.tokens, cut, strict=True)]
    assert min(columns) > 0
    whole = [np.pad(x, [(0, 0), (0, n)]) for x, n in zip(cut, columns, strict=True)]

    def loss(prompt, tokens, **how):
        params = tree.unflatten({**flat, PROMPT_PATH: prompt})
        rngs = {"dropout": jax.random.key(1)}
        logits = model.apply({"params": params}, *tokens, rngs=rngs, **how)
        assert isinstance(logits, jax.Array), "no collection is mutable"
        losses, _ = token_cross_entropy(logits, tokens[2])
        return jnp.sum(losses, where=tokens[2] > 0)

    def gradient(tokens, **how):
        call = jax.jit(jax.value_and_grad(functools.partial(loss, tokens=tokens, **how)))
        return jax.device_get(call(flat[PROMPT_PATH]))

    value, expected = gradient(whole)
    found = gradient(cut, trimmed=tuple(columns[:2]))
    assert found[0] == pytest.approx(value, rel=1e-6)
    assert max_difference(found[1], expected) <= 1e-5 * np.abs(expected).max()
    # Another draw would show.
    other = jax.jit(functools.partial(loss, tokens=cut))(flat[PROMPT_PATH])
    assert other != pytest.approx(value, rel=1e-3)


def test_dropout_is_off_without_enable_dropout(reference):
    off, none = (
        logits_of(make_model(dropout_rate=rate), reference.params, reference.tokens)
        for rate in (RATE, 0.0)
    )
    assert max_difference(off, none) == 0.0
