"""T5Gemma's modules: windows, caches, prompts; numbers of other programs are compared in `tests/parity`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.prefix import Prefix
from prompt_tuning.models.t5gemma.config import StackSizes
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.params import int8
from prompt_tuning.params.names import is_method
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
        differs = np.not_equal(encode(ids), encode(ids.at[0, at].add(1)))
        changed = differs.any(axis=-1)[0]
        reads = [-encoder.window_ahead <= i - at < encoder.window for i in range(LENGTH)]
        # i reads j where -ahead <= i - j < window.
        assert changed.tolist() == (reads if kind == "sliding" else [True] * LENGTH)


def _call(config):
    module = T5Gemma(config)
    params = {"params": tree.unflatten(random_params(config))}
    return jax.jit(
        lambda *args, **named: module.apply(params, *args, enable_dropout=False, **named)
    )


def test_a_shorter_prompt_of_a_batch_is_computed_as_if_alone():
    call = _call(tiny_t5gemma())
    prompt = jnp.asarray(np.random.default_rng(3).standard_normal((2, 3, 32)), jnp.float32)
    inputs, targets = tokens(length=5), tokens(length=4, seed=1)
    apart = call(inputs[:1], targets[:1], targets[:1], prompt=prompt[:1, 1:])
    mask = jnp.asarray([[0, 1, 1], [1, 1, 1]])
    together = call(inputs, targets, targets, prompt=prompt, prompt_mask=mask)
    np.testing.assert_allclose(together[:1], apart, rtol=0, atol=2e-5)


def test_packed_examples_are_computed_as_if_alone():
    """Where keys of the input are not turned, positions count from the start of each example."""
    call = _call(tiny_t5gemma(merges_attention=True))
    inputs, targets = tokens(length=5), tokens(length=4, seed=1)
    plain = call(inputs, targets, targets)
    in_a_row = [x.reshape(1, -1) for x in (inputs, targets, targets)]
    segments = [jnp.repeat(jnp.asarray([[1, 2]]), n, axis=1) for n in (5, 4)]
    packed = call(*in_a_row, *segments)
    np.testing.assert_allclose(packed.reshape(plain.shape), plain, rtol=0, atol=2e-5)


def test_a_beam_has_the_score_that_its_tokens_have():
    config = tiny_t5gemma(merges_attention=True)
    model = EncoderDecoderModel(T5Gemma(config), None, None, decode_fn=BeamSearch(2))
    batch, params = {"encoder_input_tokens": tokens()}, tree.unflatten(random_params(config))
    ids, found = jax.jit(lambda params: model.predict(params, batch, TARGETS))(params)
    ones = jnp.ones(ids.shape, jnp.int32)
    # The start is 0 here, as pipelines make it; the model has another.
    inputs = jnp.pad(ids, ((0, 0), (1, 0)))[:, :-1]
    targets = {
        "decoder_target_tokens": ids,
        "decoder_input_tokens": inputs,
        "decoder_loss_weights": ones,
    }
    scores = jax.jit(lambda params: model.score(params, {**batch, **targets}))(params)
    # A row that ended has a score with a penalty.
    assert (np.asarray(ids) > 1).all()
    np.testing.assert_allclose(found["scores"], scores, rtol=0, atol=1e-4)


def test_int8_kernels_give_what_their_values_give():
    config = tiny_t5gemma(merges_attention=True)
    held = int8.hold(random_params(config), int8.INT8)
    values = {path: x for path, x in held.items() if int8.kernel_of(path) == path}
    for path in filter(int8.is_kernel, values):
        values[path] = held[path].astype(jnp.float32) * held[int8.scale_path(path)][None]
    call = lambda params: jax.jit(  # noqa: E731
        lambda params: T5Gemma(config).apply(
            {"params": tree.unflatten(params)}, tokens(), tokens(), tokens(), enable_dropout=False
        )
    )(params)
    np.testing.assert_allclose(call(held), call(values), rtol=0, atol=1e-4)


def test_int8_moves_the_loss_less_than_half_a_scale_of_each_weight_may():
    """As for T5 (`tests/models/test_int8.py`): first order, a small part of it since signs of roundings are random."""
    config = tiny_t5gemma()
    flat = {path: 0.3 * x for path, x in random_params(config).items()}
    held = int8.hold(flat, int8.INT8)
    kernels = {path: jnp.asarray(x) for path, x in flat.items() if int8.is_kernel(path)}
    module, ids = T5Gemma(config), tokens()

    @jax.jit
    def loss(changed):
        params = tree.unflatten({**{p: x for p, x in flat.items() if p not in kernels}, **changed})
        logits = jnp.asarray(module.apply({"params": params}, ids, ids, ids, enable_dropout=False))
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1))

    value, slopes = jax.value_and_grad(loss)(kernels)
    bound = sum(
        float(jnp.sum(jnp.abs(slope) * held[int8.scale_path(path)][None])) / 2
        for path, slope in slopes.items()
    )
    changed = {path: x for path, x in held.items() if int8.kernel_of(path) in kernels}
    assert 0 < abs(float(loss(changed)) - float(value)) < bound / 4


def test_methods_find_their_places(config):
    module = T5Gemma(config, None, IA3())
    shapes = EncoderDecoderModel(module, None, None).param_shapes
    added = {path: x.shape for path, x in shapes.items() if is_method(path)}
    # Keys and values of each attention, and wo, in two layers of both stacks.
    assert len(added) == 2 * 3 + 2 * (3 if config.merges_attention else 5)
    assert added["encoder/layers_0/attention/key/ia3_scaling"] == (16,)
    prefix = Prefix(hidden=4)
    model = EncoderDecoderModel(T5Gemma(config, None, prefix), None, None)
    with pytest.raises(ConfigError, match="finds nothing to act on"):
        prefix.check(list(filter(is_method, model.param_shapes)))


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
