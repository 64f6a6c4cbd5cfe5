import dataclasses

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import layouts
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from prompt_tuning.run import arrays
from prompt_tuning.run.arrays import held_shapes, put_in_order, random_params
from tests.helpers import tiny_config

QUERY = "encoder/encoder/attention/query/kernel"


def _model(**overrides) -> EncoderDecoderModel:
    return EncoderDecoderModel(T5(tiny_config(dropout_rate=0.0, **overrides)), None, None)


@pytest.mark.parametrize(
    ("path", "ndim", "order"),
    [
        (QUERY, 4, (1, 2, 3, 0)),
        ("decoder/decoder/encoder_decoder_attention/out/kernel", 4, (1, 0, 2, 3)),
        ("encoder/encoder/mlp/wi_0/kernel", 3, (1, 0, 2)),
        ("encoder/encoder/mlp/wi_0/kernel_scale", 2, (1, 0)),
        ("encoder/encoder/pre_mlp_layer_norm/scale", 2, (1, 0)),
        ("encoder/layers_0/attention/query/kernel", 2, None),
        ("token_embedder/embedding", 2, None),
    ],
)
def test_layers_come_first_in_memory(path, ndim, order):
    assert layouts.memory_order(path, ndim) == order


def test_random_weights_of_a_seed_do_not_depend_on_the_method():
    plain = _model(scan_layers=True, num_encoder_layers=1, num_decoder_layers=1)
    tuned = dataclasses.replace(plain, module=plain.module.clone(method=IA3()))
    partitioner, drawn = PjitPartitioner(), []
    for model in (plain, tuned):
        shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
        drawn.append(random_params(model, partitioner, shardings, jax.random.key(0)))
    for path, x in drawn[0].items():
        np.testing.assert_array_equal(drawn[1][path], x)
    assert len(drawn[1]) == len(drawn[0]) + 8


def test_shapes_have_the_default_order_off_tpus():
    held = held_shapes(_model(scan_layers=True), PjitPartitioner(), [QUERY], "bfloat16")
    assert held[QUERY].format.layout is None
    x = jax.device_put(np.zeros(held[QUERY].shape, np.float32), held[QUERY].sharding)
    assert put_in_order({QUERY: x}, held)[QUERY] is x


def test_the_order_in_memory_changes_no_value(monkeypatch):
    monkeypatch.setattr(arrays, "_LAYERS_FIRST_PLATFORMS", ("cpu",))
    model = _model(scan_layers=True)
    rules = standard_logical_axis_rules(parameter_partitioning_dims=2)
    partitioner = PjitPartitioner(num_partitions=2, logical_axis_rules=rules)
    params = tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    held = held_shapes(model, partitioner, list(params), "float32")
    as_it_was = {path: jax.device_put(x, held[path].sharding) for path, x in params.items()}
    values = {path: np.asarray(x) for path, x in as_it_was.items()}
    batch = {
        "encoder_input_tokens": np.full((8, 6), 7, np.int32),
        "decoder_input_tokens": np.full((8, 3), 5, np.int32),
        "decoder_target_tokens": np.full((8, 3), 5, np.int32),
    }
    placed = partitioner.shard_batch(batch)
    with partitioner.activate():
        expected = np.asarray(jax.jit(model.apply)(tree.unflatten(as_it_was), placed))
        ordered = put_in_order(as_it_was, held)
        lowered = jax.jit(model.apply).lower(tree.unflatten(ordered), placed)
        got = np.asarray(lowered.compile()(tree.unflatten(ordered), placed))
    assert getattr(ordered[QUERY], "format").layout.major_to_minor == (1, 2, 3, 0)  # noqa: B009
    assert ordered[QUERY].sharding == held[QUERY].sharding
    # What was in another order is freed: two copies of the weights would not fit.
    assert as_it_was[QUERY].is_deleted()
    for path, x in ordered.items():
        np.testing.assert_array_equal(np.asarray(x), values[path])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
