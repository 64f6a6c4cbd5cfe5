"""Rows of one batch with sets of their own give what each gives alone; batches without any are left as they were.

A set is a prompt, or what a method added to the layers.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import ADDED_REGEX, PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.prompts.config import PromptConfig
from tests import both_layouts
from tests.helpers import tiny_config

IS_ADDED = tree.match_any(ADDED_REGEX)
WIDTH, LENGTHS, ROWS, TARGETS = 32, (5, 2, 2), 12, 6
# The prompt of each row, in no order, and none as often as another.
CHOSEN = np.array([0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 2, 0], np.int32)
GREEDY = Greedy()


@functools.cache
def prompts():
    rng = np.random.default_rng(1)
    return [rng.normal(0, 3, (length, WIDTH)).astype(np.float32) for length in LENGTHS]


def make_model(decode_fn=GREEDY, *, scan_layers=False, length=3, method=None):
    prompt = None if method else PromptConfig(length=length)
    module = T5(tiny_config(scan_layers=scan_layers), prompt, method)
    return EncoderDecoderModel(module, None, None, decode_fn=decode_fn)


@functools.cache
def weights(*, scan_layers=False, method=None):
    """Random weights with a head that often ends sequences, so that these differ in length."""
    flat = tree.flatten(jax.jit(make_model(method=method).init)(jax.random.key(0)))
    head = flat["decoder/logits_dense/kernel"]
    flat["decoder/logits_dense/kernel"] = head.at[:, EOS_ID].multiply(4.0)
    return both_layouts.to_scanned(flat) if scan_layers else flat


@functools.cache
def added(**layout):
    """What a method added, three times, in the layout of the model."""
    rng = np.random.default_rng(1)
    shapes = {p: x.shape for p, x in sorted(weights(**layout).items()) if IS_ADDED(p)}
    return [
        {p: rng.uniform(-1, 3, shape).astype(np.float32) for p, shape in shapes.items()}
        for _ in LENGTHS
    ]


def alone(number, **layout):
    """All parameters with one of the sets."""
    own = added(**layout)[number] if layout.get("method") else {PROMPT_PATH: prompts()[number]}
    return tree.unflatten({**weights(**layout), **own})


def together(**layout):
    """The frozen parameters with the table; the model's own set is not there to be read."""
    flat = {path: x for path, x in weights(**layout).items() if not IS_ADDED(path)}
    sets: dict[str, Any] = {"prompts": prompts()}
    if layout.get("method"):
        stacked = layout.get("scan_layers", False)
        layers_first = lambda x: np.moveaxis(x, 1, 0) if stacked else x  # noqa: E731
        each = [{p: layers_first(x) for p, x in s.items()} for s in added(**layout)]
        sets = {"prompts": (), "added": each}
    return {**tree.unflatten(flat), table.TABLE: table.make_table(**sets)}


@functools.cache
def make_batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 256, (ROWS, 7)).astype(np.int32)
    tokens[::3, 4:] = 0
    targets = rng.integers(2, 256, (ROWS, TARGETS)).astype(np.int32)
    return {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": np.ones_like(targets),
    }


def mixed_batch():
    return {**make_batch(), table.INDEX: CHOSEN}


@functools.cache
def separate(function, decode_fn=GREEDY, **layout):
    """Each row's result from a run over the whole batch with its prompt alone."""
    results = []
    for number, length in enumerate(LENGTHS):
        run = jax.jit(getattr(make_model(decode_fn, length=length, **layout), function))
        results.append(jax.tree.map(np.asarray, run(alone(number, **layout), make_batch())))
    return jax.tree.map(lambda *leaves: np.stack(leaves)[CHOSEN, np.arange(ROWS)], *results)


@pytest.mark.parametrize(
    ("decode_fn", "layout"),
    [
        pytest.param(Greedy(), {}, id="greedy"),
        pytest.param(BeamSearch(), {}, id="beam"),
        pytest.param(
            BeamSearch(), {"scan_layers": True}, id="beam-scanned", marks=pytest.mark.slow
        ),
        pytest.param(Greedy(), {"method": IA3()}, id="ia3-greedy", marks=pytest.mark.slow),
        pytest.param(BeamSearch(), {"scan_layers": True, "method": IA3()}, id="ia3-beam-scanned"),
    ],
)
def test_a_mixed_batch_decodes_as_separate_runs_do(decode_fn, layout):
    model = make_model(decode_fn, **layout)
    ids, aux = jax.jit(model.predict)(together(**layout), mixed_batch())
    expected_ids, expected_aux = separate("predict", decode_fn, **layout)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(aux["scores"], expected_aux["scores"], rtol=1e-5)
    # Neither the prompts nor the rows are alike, so that a prompt in a wrong row would show.
    assert len({tuple(row) for row in expected_ids}) > ROWS // 2
    assert any((row == EOS_ID).any() for row in expected_ids)


@pytest.mark.parametrize("layout", [{}, {"method": IA3()}], ids=["prompt", "ia3"])
@pytest.mark.parametrize("method", ["apply", "score"])
def test_logits_and_scores_are_those_of_separate_runs(method, layout):
    got = jax.jit(getattr(make_model(**layout), method))(together(**layout), mixed_batch())
    np.testing.assert_allclose(got, separate(method, **layout), rtol=1e-5, atol=1e-5)


def test_padding_of_a_shorter_prompt_is_not_read():
    params = together()
    noise = np.where(params[table.TABLE]["mask"][..., None] == 1, 0.0, 1e4).astype(np.float32)
    assert noise.any()
    noisy = {**params, table.TABLE: {**params[table.TABLE]}}
    noisy[table.TABLE]["prompts"] = params[table.TABLE]["prompts"] + noise
    score = jax.jit(make_model().score)
    np.testing.assert_array_equal(score(noisy, mixed_batch()), score(params, mixed_batch()))


@pytest.mark.parametrize(
    "decode_fn",
    [Greedy(), pytest.param(BeamSearch(), marks=pytest.mark.slow)],
    ids=["greedy", "beam"],
)
@pytest.mark.parametrize(
    "layout",
    [{}, pytest.param({"method": IA3()}, marks=pytest.mark.slow)],
    ids=["prompt", "ia3"],
)
def test_on_a_mesh_it_is_the_same(decode_fn, layout):
    model = make_model(decode_fn, **layout)
    partitioner = PjitPartitioner(num_partitions=2).on(jax.devices()[:4])
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    flat = {path: jax.device_put(x, shardings[path]) for path, x in weights(**layout).items()}
    params = tree.unflatten(flat)
    params[table.TABLE] = jax.device_put(together(**layout)[table.TABLE], partitioner.replicated)
    batch = partitioner.shard_batch(mixed_batch())
    with partitioner.activate():
        ids, aux = jax.jit(model.predict)(params, batch)
        scores = jax.jit(model.score)(params, batch)
    expected_ids, expected_aux = separate("predict", decode_fn, **layout)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(aux["scores"], expected_aux["scores"], rtol=1e-5)
    np.testing.assert_allclose(scores, separate("score", **layout), rtol=1e-5)


def test_a_batch_without_numbers_compiles_to_what_it_was():
    """The path of one prompt takes nothing from a table, even where one lies beside its parameters."""
    model, params = make_model(length=LENGTHS[0]), alone(0)
    both = {**params, table.TABLE: table.make_table(prompts())}
    for method in (model.apply, model.predict):
        without = jax.jit(method).lower(params, make_batch()).as_text()
        assert jax.jit(method).lower(both, make_batch()).as_text() == without
        assert jax.jit(method).lower(both, mixed_batch()).as_text() != without


def test_a_table_pads_on_the_left():
    made = table.make_table(prompts())
    assert made["prompts"].shape == (3, 5, WIDTH) and made["prompts"].dtype == np.float32
    assert made["mask"].tolist() == [[1] * 5, [0] * 3 + [1] * 2, [0] * 3 + [1] * 2]
    for prompt, row, mask in zip(prompts(), made["prompts"], made["mask"], strict=True):
        np.testing.assert_array_equal(row[mask == 1], prompt)
        assert not row[mask == 0].any()


@pytest.mark.parametrize("widths", [(), (32, 16)])
def test_prompts_of_different_models_make_no_table(widths):
    with pytest.raises(ConfigError, match=f"{len(widths)} prompts of widths"):
        table.make_table([np.zeros((2, width), np.float32) for width in widths])
