"""One step, many meshes: losses, gradients and prompts of eight devices are those of one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run.arrays import abstract_state, shardings_of
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_train_step
from tests.helpers import tiny_config
from tests.models.t5gemma.tiny import tiny_t5gemma

PROMPT = "encoder/prompt/prompt/prompt"
STEPS = 5
# The paper's 0.3 turns rounding (1e-7) in a gradient near zero into 3e-5 of the prompt within five updates.
LEARNING_RATE = 0.01
pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


def _model(scan_layers: bool, family: str = "t5", **config) -> EncoderDecoderModel:
    if family != "t5":
        gemma = tiny_t5gemma(merges_attention=family == "t5gemma2", scan_layers=scan_layers)
        return EncoderDecoderModel(T5Gemma(gemma, PromptConfig(length=8)), None, None)
    # Eight heads, so that they can be spread over eight devices; more than one layer only where they are one array.
    num_layers = 2 if scan_layers else 1
    sizes = {
        "num_heads": 8,
        "head_dim": 4,
        "dropout_rate": 0.0,
        "scan_layers": scan_layers,
        "num_encoder_layers": num_layers,
        "num_decoder_layers": num_layers,
    }
    return EncoderDecoderModel(
        T5(tiny_config(**sizes, **config), PromptConfig(length=8)), None, None
    )


def _batch(rows: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    inputs = rng.integers(2, 256, (rows, 11), dtype=np.int32)
    inputs[1, 7:] = 0
    targets = rng.integers(2, 256, (rows, 5), dtype=np.int32)
    targets[2, 3:] = 0
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": targets,
        "decoder_loss_weights": (targets > 0).astype(np.int32),
    }


def _keeping_gradients(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, with the gradients it was last given beside its state."""

    def update(grads, state, params=None):
        updates, inner = tx.update(grads, state[0], params)
        return updates, (inner, grads)

    return optax.GradientTransformation(lambda p: (tx.init(p), p), update)  # pyright: ignore


@functools.cache
def _start(model: EncoderDecoderModel) -> tuple[dict, dict]:
    params = jax.jit(model.init)(jax.random.key(0))
    return tree.split(jax.tree.map(np.asarray, params), (".*/prompt/.*",))


def _trajectory(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, num_microbatches: int = 1
):
    """Losses [5], gradients and prompts [5, P, H] of five updates by the paper's optimizer."""
    tx = _keeping_gradients(
        Adafactor(
            restored_step=1_100_000, multiply_by_parameter_scale=False, weight_decay_rate=1e-5
        ).make(lambda step: LEARNING_RATE)
    )
    trainable, frozen = _start(model)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    shapes = {PROMPT: model.param_shapes[PROMPT]}
    sharded = shardings_of(abstract_state(tx, shapes, shardings, partitioner))
    key = jax.random.key_data(jax.random.key(1))
    state = TrainState(jnp.int32(0), trainable, tx.init(trainable), key)
    state = jax.device_put(state, sharded)
    flat = {p: jax.device_put(x, shardings[p]) for p, x in tree.flatten(frozen).items()}
    step = make_train_step(
        model.apply,
        tx,
        learning_rate_fn=lambda step: LEARNING_RATE,
        loss_config=model.loss_config,
        num_microbatches=num_microbatches,
    )
    jitted = jax.jit(step, donate_argnums=0, out_shardings=(sharded, partitioner.replicated))
    batch = partitioner.shard_batch(_batch())
    steps = []
    with partitioner.activate():
        for _ in range(STEPS):
            state, metrics = jitted(state, tree.unflatten(flat), batch)
            jax.block_until_ready(metrics)
            gradient = tree.flatten(state.opt_state[1])[PROMPT]
            prompt = tree.flatten(state.trainable)[PROMPT]
            steps.append(jax.tree.map(np.asarray, (metrics["loss"], gradient, prompt)))
    assert prompt.sharding == shardings[PROMPT]
    return [np.stack(x) for x in zip(*steps, strict=True)]


@functools.cache
def _on_one_device(scan_layers: bool, family: str = "t5"):
    partitioner = PjitPartitioner()
    partitioner.__dict__["mesh"] = jax.sharding.Mesh(
        np.asarray(jax.devices()[:1]).reshape(1, 1), ("data", "model")
    )
    assert partitioner.mesh.size == 1
    return _trajectory(_model(scan_layers, family), partitioner)


def _assert_same(got, expected):
    losses, gradients, prompts = expected
    np.testing.assert_allclose(got[0], losses, rtol=1e-5)
    np.testing.assert_allclose(got[1], gradients, rtol=0, atol=1e-5 * np.abs(gradients).max())
    np.testing.assert_allclose(got[2], prompts, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "scan_layers", "num_partitions", "activation_dims", "parameter_dims"),
    [
        *[("t5", False, n, 1, 1) for n in (1, 2, 8)],
        ("t5", True, 4, 1, 1),
        ("t5", False, 1, 1, 2),  # every weight spread over `data`
        ("t5", False, 2, 2, 2),  # weights and activations over both axes
        ("t5", True, 2, 2, 2),
        # Four devices share two heads of keys.
        pytest.param("t5gemma", False, 4, 1, 2, marks=pytest.mark.slow),
        pytest.param("t5gemma2", True, 2, 2, 2, marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(
    family, scan_layers, num_partitions, activation_dims, parameter_dims
):
    rules = standard_logical_axis_rules(activation_dims, parameter_dims)
    partitioner = PjitPartitioner(num_partitions=num_partitions, logical_axis_rules=rules)
    assert dict(partitioner.mesh.shape) == {"data": 8 // num_partitions, "model": num_partitions}
    got = _trajectory(_model(scan_layers, family), partitioner)
    _assert_same(got, _on_one_device(scan_layers, family))


def test_a_prompt_spread_over_both_axes_learns_the_same():
    rules = standard_logical_axis_rules(
        additional_rules=[("prompt", "data"), ("prompt_embed", "model")]
    )
    partitioner = PjitPartitioner(num_partitions=4, logical_axis_rules=rules)
    got = _trajectory(_model(True), partitioner)
    _assert_same(got, _on_one_device(True))
