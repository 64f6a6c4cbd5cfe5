"""T5Gemma's modules: windows, caches, prompts; numbers of other programs are compared in `tests/parity`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5gemma.config import StackSizes
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from tests import both_layouts
from tests.models.t5gemma.tiny import random_params, tiny_t5gemma

LENGTH, TARGETS = 10, 9


def tokens(rows=2, length=LENGTH, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(3, 199, (rows, length)), jnp.int32)


@pytest.fixture(scope="module", params=[False, True], ids=["1", "2"])
def config(request):
    return tiny_t5gemma(merges_attention=request.param)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_cache_gives_the_logits_of_the_whole_and_keeps_no_more_than_the_window(
    config, scan_layers
):
    inputs, targets = tokens(), tokens(length=TARGETS, seed=1)
    whole = T5Gemma(config)
    stacked = random_params(dataclasses.replace(config, scan_layers=True))
    flat = both_layouts.to_unscanned(stacked)
    teach = lambda params: whole.apply(  # noqa: E731
        {"params": params}, inputs, targets, targets, enable_dropout=False
    )
    expected = jax.jit(teach)(tree.unflatten(flat))
    module = T5Gemma(dataclasses.replace(config, scan_layers=scan_layers))
    params = tree.unflatten(stacked if scan_layers else flat)

    @jax.jit
    def decoded(params):
        apply = lambda variables, ids, mutable: module.apply(  # noqa: E731
            {"params": params, **variables},
            encoded,
            inputs,
            ids,
            ids,
            enable_dropout=False,
            decode=True,
            mutable=mutable,
            method=module.decode,
        )
        encoded = module.apply(
            {"params": params}, inputs, enable_dropout=False, method=module.encode
        )
        _, start = apply({}, targets, ["cache", "encoded"])

        def step(cache, token):
            variables = {"cache": cache, "encoded": start["encoded"]}
            logits, changed = apply(variables, token[:, None], ["cache"])
            return changed["cache"], logits[:, 0]

        _, logits = jax.lax.scan(step, start["cache"], targets.T)
        return jnp.swapaxes(logits, 0, 1), start["cache"]

    logits, cache = decoded(params)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-5)
    kept = {path: x.shape[-1] for path, x in tree.flatten(cache).items() if path.endswith("key")}
    window = config.decoder.window
    assert config.decodes_apart(TARGETS) and not config.decodes_apart(window)
    assert sorted(kept.values()) == ([TARGETS] if scan_layers else [window, TARGETS])


def test_sliding_layers_read_their_window_and_full_ones_all(config):
    """A token that is changed changes what reads it, and nothing else, in a stack of one layer."""
    for kind in ("sliding", "full"):
        encoder = dataclasses.replace(config.encoder, num_layers=1, layer_types=(kind,))
        module = T5Gemma(dataclasses.replace(config, encoder=encoder))
        flat = random_params(module.config)
        encode = jax.jit(
            lambda ids, module=module, flat=flat: module.apply(
                {"params": tree.unflatten(flat)}, ids, enable_dropout=False, method=module.encode
            )
        )
        ids, at = tokens(rows=1), 5
        changed = np.asarray(encode(ids) != encode(ids.at[0, at].add(1))).any(axis=-1)[0]
        reads = [-encoder.window_ahead <= i - at < encoder.window for i in range(LENGTH)]
        # i reads j where -ahead <= i - j < window.
        assert changed.tolist() == (reads if kind == "sliding" else [True] * LENGTH)


def test_shorter_prompts_and_packed_examples_are_computed_as_if_alone(config):
    module = T5Gemma(config)
    params = {"params": tree.unflatten(random_params(config))}
    prompt = jnp.asarray(np.random.default_rng(3).standard_normal((2, 3, 32)), jnp.float32)
    inputs, targets = tokens(length=5), tokens(length=4, seed=1)
    call = jax.jit(
        lambda *args, **named: module.apply(params, *args, enable_dropout=False, **named)
    )
    apart = call(inputs[:1], targets[:1], targets[:1], prompt=prompt[:1, 1:])
    mask = jnp.asarray([[0, 1, 1], [1, 1, 1]])
    together = call(inputs, targets, targets, prompt=prompt, prompt_mask=mask)
    np.testing.assert_allclose(together[:1], apart, rtol=0, atol=2e-5)

    plain = call(inputs, targets, targets)
    in_a_row = [x.reshape(1, -1) for x in (inputs, targets, targets)]
    segments = [jnp.repeat(jnp.asarray([[1, 2]]), n, axis=1) for n in (5, 4)]
    packed = call(*in_a_row, *segments)
    np.testing.assert_allclose(packed.reshape(plain.shape), plain, rtol=0, atol=2e-5)


def test_beams_of_a_row_share_its_input(config):
    """Two equal beams, as one beam: keys of the input are kept once for each row of the batch."""
    from prompt_tuning.decoding.beam_search import BeamSearch

    model = EncoderDecoderModel(T5Gemma(config), None, None, decode_fn=BeamSearch(2))
    batch = {"encoder_input_tokens": tokens()}
    params = tree.unflatten(random_params(config))
    ids, _ = jax.jit(lambda p: model.predict(p, batch, TARGETS))(params)
    assert ids.shape == (2, TARGETS) and (np.asarray(ids) < 256).all()


@pytest.mark.parametrize(
    "fields", [{"num_heads": 3}, {"layer_types": ("sideways",)}, {"window": 0}, {"head_dim": 7}]
)
def test_sizes_that_cannot_be_are_refused(fields):
    sizes = {**dataclasses.asdict(tiny_t5gemma().encoder), **fields}
    with pytest.raises(ConfigError, match="T5GemmaStack"):
        StackSizes(**sizes)


def test_one_table_needs_one_width():
    wide = dataclasses.replace(tiny_t5gemma().decoder, emb_dim=64)
    with pytest.raises(ConfigError, match="one width"):
        tiny_t5gemma(merges_attention=True, decoder=wide)
