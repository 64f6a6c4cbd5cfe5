"""Wayward prompts: the term, its gradient, its share of a microbatch, and targets that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.methods.wayward import Wayward
from prompt_tuning.params.names import EMBEDDING, PROMPT_PATH
from prompt_tuning.prompts.initializers import FromFile, FromText, Uniform
from prompt_tuning.training.losses import with_penalty
from prompt_tuning.training.metrics import summarize

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(8, 4)).astype(np.float32)
PROMPT = RNG.normal(size=(3, 4)).astype(np.float32)


def encode_text(text: str) -> list[int]:
    """One id per word: its length."""
    return [len(word) for word in text.split()]


def _params(**changes) -> dict:
    flat = {EMBEDDING: TABLE.astype(jnp.bfloat16), PROMPT_PATH: PROMPT}
    return tree.unflatten({**flat, **changes})


def test_the_term_is_the_distance_from_the_texts_embeddings_and_so_is_its_gradient(tmp_path):
    target = TABLE[[4, 1, 2]].astype(jnp.bfloat16).astype(np.float32)
    np.save(tmp_path / "target.npy", target)
    text, file = FromText("four a of"), FromFile(str(tmp_path / "target.npy"))
    for spec in (text, file):
        method = Wayward(target=spec, gamma=0.25)
        value, grads = jax.value_and_grad(lambda p, m=method: m.penalty(p, encode_text))(_params())
        expected = 0.25 * np.square(PROMPT - target).sum() / 3
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        flat = tree.flatten(grads)
        np.testing.assert_allclose(flat[PROMPT_PATH], 0.5 * (PROMPT - target) / 3, rtol=1e-6)
    assert Wayward(target=text).describe()["target"]["text"] == "four a of"


def test_microbatches_share_it_and_it_is_logged_apart():
    loss, sums = with_penalty(jnp.float32(6), {"loss": jnp.float32(6)}, jnp.float32(4), 2)
    assert (float(loss), float(sums["loss"]), float(sums["penalty"])) == (8, 8, 2)
    totals = {"loss": 20.0, "penalty": 4.0, "z_loss": 1.0, "correct": 1.0, "target_tokens": 5.0}
    tags = summarize({**totals, "all_tokens": 5.0, "sequences": 1.0}, num_steps=2)
    assert (tags["loss"], tags["penalty"], tags["cross_ent_loss"]) == (10.0, 2.0, 7.5)


def test_targets_that_do_not_fit_are_refused():
    method = Wayward(target=FromText("four a"))
    with pytest.raises(ConfigError, match="bind PROMPT_LENGTH = 2"):
        method.penalty(_params(), encode_text)
    with pytest.raises(ConfigError, match="got 'no prompt'"):
        method.penalty(tree.unflatten({EMBEDDING: TABLE}), encode_text)
    with pytest.raises(ConfigError, match=r"methods.Wayward.target"):
        Wayward(target=Uniform())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"methods.Wayward.gamma"):
        Wayward(target=FromText("a"), gamma=-1.0)
