"""Prefixes in the model: what they add, at which distances, and that they are the same however it is computed."""

import functools
import math

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data.packing import pack
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.prefix import Prefix
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import is_added, is_method
from prompt_tuning.prompts.config import PromptConfig
from tests import both_layouts
from tests.helpers import GOLDEN, tiny_config
from tests.models.conftest import max_difference

LENGTH = 3
PREFIX = Prefix(length=LENGTH)


def _model(
    method: Prefix | None = PREFIX, prompt=None, decode_fn=None, **config
) -> EncoderDecoderModel:
    module = T5(tiny_config(dropout_rate=0.0, **config), prompt, method)
    return EncoderDecoderModel(module, None, None, decode_fn=decode_fn or Greedy())


@functools.cache
def _params(method=PREFIX, prompt=None) -> dict[str, np.ndarray]:
    """The reference model's weights, unscanned, and what is added to them: as large as what tokens have there."""
    rng = np.random.default_rng(2)
    frozen = dict(np.load(GOLDEN / "params.npz"))
    shapes = {p: x.shape for p, x in _model(method, prompt).param_shapes.items() if is_added(p)}
    return frozen | {p: rng.normal(size=shape).astype(np.float32) for p, shape in shapes.items()}


@functools.cache
def _batch(rows: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 256, (rows, 7)).astype(np.int32)
    targets = rng.integers(2, 256, (rows, 5)).astype(np.int32)
    tokens[::2, 4:], targets[1::2, 3:] = 0, 0
    return {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


def _apply(model, flat, batch, function="apply"):
    return jax.tree.map(np.asarray, jax.jit(getattr(model, function))(tree.unflatten(flat), batch))


@pytest.mark.parametrize(("hidden", "count"), [(None, 589_824), (512, 154_449_408)])
def test_counts_are_t_fews(hidden, count):
    """576K in the paper's table 4: two positions ("Question:", "Answer:"), three places, 24 layers of XL."""
    sizes = {"emb_dim": 2048, "num_heads": 32, "head_dim": 64, "mlp_dim": 5120, "vocab_size": 64}
    config = tiny_config(scan_layers=True, num_encoder_layers=24, num_decoder_layers=24, **sizes)
    model = EncoderDecoderModel(T5(config, method=Prefix(length=2, hidden=hidden)), None, None)
    shapes = {p: x.shape for p, x in model.param_shapes.items() if is_method(p)}
    assert sum(map(math.prod, shapes.values())) == count
    names = {p: axes for p, axes in model.param_axes.items() if p.endswith("/prefix_key")}
    assert set(names.values()) <= {("prompt", "layers", "joined_kv")}


def test_keys_and_values_of_tokens_stand_for_them():
    """A decoder that has the first targets as its prefix reads the others as if those were there."""
    model, flat = _model(Prefix(length=LENGTH, places=("decoder",))), _params()
    batch = _batch()
    inputs, rows = batch["decoder_input_tokens"], len(batch["decoder_input_tokens"])
    plain = _model(None)
    frozen = {p: x for p, x in flat.items() if not is_method(p)}
    full = np.ones_like(inputs)
    encoded = np.random.default_rng(3).normal(size=(rows, 7, 32)).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0, static_argnames=("decode", "mutable"))
    def decode(module, params, inputs, targets, variables=None, **kwargs):
        return module.apply(
            {"params": tree.unflatten(params), **(variables or {})},
            encoded, batch["encoder_input_tokens"], inputs, targets, enable_dropout=False,
            method=module.decode, **kwargs,
        )  # fmt: skip

    expected = decode(plain.module, frozen, inputs, full)
    collections = ("cache", "encoded")
    _, variables = decode(plain.module, frozen, full, full, decode=True, mutable=collections)
    for i in range(LENGTH):
        _, changed = decode(
            plain.module, frozen, inputs[:, i : i + 1], full[:, :1], decode=True,
            variables=dict(variables), mutable=("cache",),
        )  # fmt: skip
        variables = {**variables, **changed}
    own = dict(frozen)
    for path, x in tree.flatten(variables["cache"]).items():
        if path.endswith("index"):
            continue
        kept = np.moveaxis(np.asarray(x)[..., :LENGTH], -1, 1).reshape(rows, LENGTH, -1)
        own[path.replace("cached_", "prefix_")] = kept
    got = decode(model.module, own, inputs[:, LENGTH:], full[:, LENGTH:])
    assert max_difference(got, expected[:, LENGTH:]) <= 2e-5
    # A prefix that is not read, or whose distances are others, would show.
    assert (
        max_difference(got, decode(plain.module, frozen, inputs[:, LENGTH:], full[:, LENGTH:]))
        > 0.01
    )


@pytest.mark.parametrize(
    ("decode_fn", "scan_layers"), [(Greedy(), True), (BeamSearch(num_decodes=2), False)]
)
def test_decoding_reads_what_teacher_forcing_reads(decode_fn, scan_layers):
    flat = both_layouts.to_scanned(_params()) if scan_layers else _params()
    model, batch = _model(decode_fn=decode_fn, scan_layers=scan_layers), _batch()
    ids, aux = _apply(model, flat, batch, "predict")
    forced = {
        **batch,
        "decoder_input_tokens": np.pad(ids, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": ids,
        "decoder_loss_weights": (ids > 0).astype(np.int32),
    }
    if isinstance(decode_fn, Greedy):
        logits = _apply(model, flat, forced)
        np.testing.assert_array_equal(np.argmax(logits, -1)[ids > 0], ids[ids > 0])
    scores = _apply(model, flat, forced, "score")
    # Beam search divides what has ended by a power of its length.
    alpha = 0 if isinstance(decode_fn, Greedy) else decode_fn.alpha
    lengths = np.where((ids == EOS_ID).any(axis=1), (ids > 0).sum(axis=1), 1)
    expected = scores / ((5 + lengths) / 6) ** alpha
    np.testing.assert_allclose(aux["scores"], expected, rtol=1e-4)
    frozen = {p: x for p, x in flat.items() if not is_method(p)}
    without = _apply(
        _model(None, scan_layers=scan_layers, decode_fn=decode_fn), frozen, batch, "predict"
    )
    assert not np.array_equal(without[0], ids)


def test_packed_examples_have_the_prefix_each_at_its_own_distance():
    prompt = PromptConfig(length=2)
    model, flat, batch = _model(prompt=prompt), _params(PREFIX, prompt), _batch()
    packed = pack(batch, prompt_length=2, width=24, target_width=12, row_counts=(2, 4))
    assert packed["encoder_segment_ids"].max() > 1
    logits = _apply(model, flat, batch)[batch["decoder_target_tokens"] > 0]
    ours = _apply(model, flat, packed)
    of_example = {}
    for row, segment in np.ndindex(2, 4):
        at = packed["decoder_segment_ids"][row] == segment + 1
        if at.any():
            of_example[tuple(packed["decoder_target_tokens"][row][at])] = ours[row][at]
    rows = [tuple(r[r > 0]) for r in batch["decoder_target_tokens"]]
    assert max_difference(np.concatenate([of_example[r] for r in rows]), logits) <= 2e-5


def test_targets_behind_each_other_in_a_row_score_as_alone():
    model, flat, batch = _model(), _params(), _batch()
    alone = _apply(model, flat, batch, "score")
    # Each input with its own targets and, behind them, its neighbour's.
    other = np.roll(np.arange(4), 1)
    part = {n: np.concatenate([x, x[other]], 1)[:, None] for n, x in batch.items() if n[0] == "d"}
    part["decoder_segment_ids"] = np.repeat([[[1] * 5 + [2] * 5]], 4, axis=0).astype(np.int32)
    part["encoder_input_tokens"] = batch["encoder_input_tokens"]
    scores = _apply(model, flat, part, "score_targets")[:, 0]
    np.testing.assert_allclose(scores[:, :5].sum(axis=1), alone, rtol=1e-5)
    swapped = {**batch, **{n: x[other] for n, x in batch.items() if n[0] == "d"}}
    np.testing.assert_allclose(
        scores[:, 5:].sum(axis=1), _apply(model, flat, swapped, "score"), rtol=1e-5
    )


def test_a_shorter_prompt_of_a_batch_is_next_to_the_prefix():
    model, flat, batch = _model(), _params(), _batch()
    rng = np.random.default_rng(1)
    prompt = rng.normal(size=(2, 32)).astype(np.float32)
    padded = np.concatenate([np.full((3, 32), 9, np.float32), prompt])
    call = jax.jit(lambda prompt, mask: model.module.apply(
        {"params": tree.unflatten(flat)}, *(batch[n] for n in list(batch)[:3]), prompt=prompt,
        prompt_mask=mask, enable_dropout=False,
    ))  # fmt: skip
    mask = np.repeat([[0, 0, 0, 1, 1]], 4, axis=0)
    real = batch["decoder_target_tokens"] > 0
    got = np.asarray(call(np.stack([padded] * 4), mask))[real]
    assert max_difference(got, np.asarray(call(prompt, None))[real]) <= 2e-5


def test_the_network_makes_what_its_keys_and_values_say():
    """Folded by hand."""
    method = Prefix(length=LENGTH, hidden=5)
    flat, batch = _params(method), _batch()
    own = {p: x for p, x in flat.items() if not is_method(p)}
    for path, kernel in flat.items():
        if not path.endswith(("prefix_key_kernel", "prefix_value_kernel")):
            continue
        stack = path.split("/")[0]
        place = {"attention": "encoder", "self_attention": "decoder"}.get(
            path.split("/")[2], "cross"
        )
        of = lambda name: flat[f"{stack}/prefix_{place}_{name}"]  # noqa: E731, B023
        features = np.tanh(of("embedding") @ of("kernel") + of("bias"))
        name = path.removesuffix("_kernel")
        own[name] = features @ kernel + flat[f"{name}_bias"]
    got = _apply(_model(method), flat, batch)
    assert max_difference(got, _apply(_model(), own, batch)) <= 1e-5


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"length": 0}, "methods.Prefix.length"),
        ({"hidden": 0}, "methods.Prefix.hidden"),
        ({"places": ()}, "methods.Prefix.places"),
        ({"places": 3}, "methods.Prefix.places is no list of texts: got 3"),
        ({"places": ("encoder", "middle")}, "got 'middle', expected one of 'encoder', 'decoder'"),
        ({"length": 129}, "at most relative_attention_max_distance = 128"),
    ],
)
def test_settings_that_fit_no_model_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        _model(Prefix(**settings)).param_shapes  # noqa: B018
