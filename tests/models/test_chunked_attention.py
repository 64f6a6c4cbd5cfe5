"""Attention by chunks against attention that writes all its weights: outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models import chunked_attention
from tests.models.conftest import make_model, max_difference

BATCH, HEADS, QUERIES, KEYS, DEPTH = 4, 6, 5, 7, 8


def _plain(query, key, value, mask, relative):
    logits = jnp.einsum("bnqd,bndk->bnqk", query, key)
    weights = jax.nn.softmax(logits + jnp.where(mask, 0.0, -1e10) + relative)
    return jnp.einsum("bnqk,bndk->bnqd", weights, value)


def _arguments():
    draw = np.random.default_rng(0).normal
    shapes = [(QUERIES, DEPTH), (DEPTH, KEYS), (DEPTH, KEYS)]
    arrays = [jnp.asarray(draw(size=(BATCH, HEADS, *shape)), jnp.float32) for shape in shapes]
    mask = np.random.default_rng(1).random((BATCH, 1, QUERIES, KEYS)) < 0.7
    # A query without any key.
    mask[1, 0, 2] = False
    return arrays, mask, draw(size=(1, HEADS, QUERIES, KEYS)).astype(np.float32)


# Chunks of whole rows (two, one), of some heads of a row (three), and of one head.
@pytest.mark.parametrize(("heads", "chunks"), [(12, 2), (6, 4), (4, 8), (1, 24)])
def test_outputs_and_all_gradients(monkeypatch, heads, chunks):
    monkeypatch.setattr(chunked_attention, "CHUNK", heads * QUERIES * KEYS)
    arrays, mask, relative = _arguments()
    shape = chunked_attention._shape_of(*arrays[:2])
    assert len(shape.cut(arrays[0])) == chunks

    def loss(attend, arrays, relative):
        return jnp.sum(jnp.sin(attend(*arrays, mask, relative)))

    for args in (0, (0, 1)):
        results = [
            jax.jit(
                jax.value_and_grad(lambda a, r, f=f: loss(f, a, r), args)  # noqa: B023
            )(tuple(arrays), relative)
            for f in (chunked_attention.attend, _plain)
        ]
        for ours, plain in zip(*map(jax.tree.leaves, results), strict=True):
            assert max_difference(ours, plain) <= 2e-6 * max(1.0, float(np.abs(plain).max()))


def test_no_mask_and_no_bias():
    (query, key, value), *_ = _arguments()
    ours = jax.jit(chunked_attention.attend)(query, key, value, None, None)
    assert max_difference(ours, _plain(query, key, value, np.True_, 0.0)) <= 2e-6
    zeros = jax.grad(lambda q: jnp.sum(chunked_attention.attend(q, key, value, None, None) * 0.0))
    np.testing.assert_array_equal(zeros(query), np.zeros_like(query))


@pytest.mark.parametrize("config", [{}, {"scan_layers": True, "remat_policy": "full"}])
def test_the_model_with_dropout_is_the_same(monkeypatch, reference, config):
    """The weights that dropout takes are the same, and so are the gradients of every parameter."""
    from prompt_tuning import tree
    from tests import both_layouts

    model = make_model(dropout_rate=0.2, **config)
    flat = (
        both_layouts.to_scanned(reference.params) if config.get("scan_layers") else reference.params
    )

    def loss(params):
        rngs = {"dropout": jax.random.key(3)}
        logits = model.apply({"params": params}, *reference.tokens, enable_dropout=True, rngs=rngs)
        assert isinstance(logits, jax.Array), "no collection is mutable"
        return jnp.sum(jnp.sin(logits))

    assert chunked_attention.pays()
    ours = jax.jit(jax.value_and_grad(loss))(tree.unflatten(flat))
    monkeypatch.setattr(chunked_attention, "pays", lambda: False)
    plain = jax.jit(jax.value_and_grad(lambda p: loss(p)))(tree.unflatten(flat))
    for mine, other in zip(*map(jax.tree.leaves, (ours, plain)), strict=True):
        assert max_difference(mine, other) <= 1e-5 * max(1.0, float(np.abs(other).max()))
