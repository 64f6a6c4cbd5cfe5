"""Decoding with the real module against T5X's results, from the larger reference set."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.decoding.beam_search import beam_search
from prompt_tuning.decoding.greedy import greedy_decode
from prompt_tuning.decoding.sampling import temperature_sample
from prompt_tuning.models.t5 import T5
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import SHARED, requires_shared, tiny_config

pytestmark = requires_shared


@functools.cache
def golden(name):
    assert SHARED is not None
    with np.load(SHARED / "golden" / f"{name}.npz") as file:
        return dict(file)


@functools.cache
def encoded_batch(with_prompt):
    """The reference model, its parameters, the inputs [B, L] and the encoder's output [B, S, H]."""
    flat = {path: jnp.asarray(leaf) for path, leaf in golden("params").items()}
    if with_prompt:
        assert SHARED is not None
        flat["encoder/prompt/prompt/prompt"] = jnp.asarray(np.load(SHARED / "golden/prompt.npy"))
    params = {"params": tree.unflatten(flat)}
    module: Any = T5(tiny_config(), PromptConfig(length=6) if with_prompt else None)
    tokens = jnp.asarray(golden("batch")["encoder_input_tokens"], jnp.int32)
    encode = jax.jit(
        lambda params: module.apply(params, tokens, enable_dropout=False, method=module.encode)
    )
    return module, params, tokens, encode(params)


def decode(decode_fn, *, with_prompt, copies, max_decode_length):
    """Runs `decode_fn` over the reference model, as `EncoderDecoderModel.predict` does."""
    module, params, tokens, encoded = encoded_batch(with_prompt)
    step = functools.partial(
        module.apply, mutable=["cache"], method=module.decode, enable_dropout=False, decode=True
    )
    ids = jnp.ones((tokens.shape[0], max_decode_length), jnp.int32)
    cache = jax.eval_shape(step, params, encoded, tokens, ids, ids)[1]["cache"]
    cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), cache)
    encoded, tokens = (jnp.repeat(x, copies, axis=0) for x in (encoded, tokens))

    def tokens_to_logits(ids, cache):
        logits, variables = step(
            {**params, "cache": cache},
            encoded,
            tokens,
            ids,
            ids,
            max_decode_length=max_decode_length,
        )
        return logits[:, 0], variables["cache"]

    run = jax.jit(
        lambda cache: decode_fn(
            tokens_to_logits, cache, batch_size=4, max_decode_length=max_decode_length
        )
    )
    return tuple(np.asarray(x) for x in run(cache))


@pytest.mark.parametrize(
    ("name", "kwargs", "with_prompt", "length"),
    [
        ("beam1", {"num_decodes": 1}, True, 8),
        ("beam2", {"num_decodes": 2}, True, 8),
        ("beam4", {"num_decodes": 4}, True, 8),
        ("beam4_alpha0", {"num_decodes": 4, "alpha": 0.0}, True, 8),
        ("beam4_alpha1", {"num_decodes": 4, "alpha": 1.0}, True, 8),
        ("beam4_len3", {"num_decodes": 4}, True, 3),
        ("beam4_len1", {"num_decodes": 4}, True, 1),
        ("noprompt_t5x_beam4", {"num_decodes": 4}, False, 8),
    ],
)
def test_beam_search(name, kwargs, with_prompt, length):
    ids, scores = decode(
        functools.partial(beam_search, **kwargs),
        with_prompt=with_prompt,
        copies=kwargs["num_decodes"],
        max_decode_length=length,
    )
    np.testing.assert_array_equal(ids, golden("decode")[f"{name}/tokens"])
    np.testing.assert_allclose(scores, golden("decode")[f"{name}/scores"], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "with_prompt", "length"),
    [
        ("greedy_temperature0", True, 8),
        ("greedy_topk1_raw_logprob", True, 8),
        ("greedy_len3", True, 3),
        ("noprompt_t5x_greedy", False, 8),
    ],
)
def test_greedy(name, with_prompt, length):
    ids, scores = decode(greedy_decode, with_prompt=with_prompt, copies=1, max_decode_length=length)
    np.testing.assert_array_equal(ids, golden("decode")[f"{name}/tokens"][:, 0])
    np.testing.assert_allclose(
        scores, golden("decode")[f"{name}/scores"][:, 0], rtol=1e-5, atol=2e-5
    )


def test_sampling_from_the_most_likely_token():
    ids, scores = decode(temperature_sample, with_prompt=True, copies=1, max_decode_length=8)
    np.testing.assert_array_equal(ids, golden("decode")["greedy_topk1/tokens"])
    np.testing.assert_allclose(scores, golden("decode")["greedy_topk1/scores"], atol=1e-6)
