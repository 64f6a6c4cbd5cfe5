"""The training step: what changes and what cannot, microbatches, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.losses import LossConfig
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import interleave, make_train_step
from tests.helpers import GOLDEN, tiny_config

PROMPT = "encoder/prompt/prompt/prompt"
PROMPT_ONLY = (".*/prompt/.*",)
EVERYTHING = (".*",)
pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


def _model(**overrides) -> EncoderDecoderModel:
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = tiny_config(**{"dropout_rate": 0.0, **layers, **overrides})
    return EncoderDecoderModel(T5(config, PromptConfig(length=6)), None, None)


def _params() -> dict:
    arrays = np.load(GOLDEN / "params.npz").items()
    golden = {name: jnp.asarray(x) for name, x in arrays if "layers_1" not in name}
    golden[PROMPT] = jnp.asarray(np.load(GOLDEN / "prompt.npy"), jnp.float32)
    return tree.unflatten(golden)


def _batches(count: int = 4) -> list[dict]:
    golden = np.load(GOLDEN / "batches_cycle.npz")
    return [
        {n.split("/", 1)[1]: jnp.asarray(golden[n]) for n in golden if n.startswith(f"{i}/")}
        for i in range(count)
    ]


def _paper(restored_step: int = 0):
    return Adafactor(
        restored_step=restored_step, multiply_by_parameter_scale=False, weight_decay_rate=1e-5
    ).make(lambda step: 0.3)


def _start(model, tx, regex=PROMPT_ONLY):
    trainable, frozen = tree.split(_params(), regex)
    key = jax.random.key_data(jax.random.key(1))
    return TrainState(jnp.int32(0), trainable, tx.init(trainable), key), frozen


def _step(model, tx, num_microbatches=1, learning_rate=0.3, loss_config=None):
    return make_train_step(
        model.apply,
        tx,
        learning_rate_fn=lambda step: learning_rate,
        loss_config=loss_config or model.loss_config,
        num_microbatches=num_microbatches,
    )


@pytest.mark.parametrize(("regex", "count"), [(PROMPT_ONLY, 1), (EVERYTHING, None)])
def test_only_trainable_leaves_change_and_frozen_ones_stay_bit_identical(regex, count):
    model, tx = _model(), _paper()
    state, frozen = _start(model, tx, regex)
    before = {p: np.asarray(x).copy() for p, x in tree.flatten(state.trainable).items()}
    kept = {p: np.asarray(x).copy() for p, x in tree.flatten(frozen).items()}
    step = jax.jit(_step(model, tx), donate_argnums=0)
    for batch in _batches():
        state, _ = step(state, frozen, batch)
    changed = [
        p for p, x in tree.flatten(state.trainable).items() if not np.array_equal(x, before[p])
    ]
    identical = [p for p, x in tree.flatten(frozen).items() if np.array_equal(x, kept[p])]
    total = len(tree.flatten(_params()))
    assert len(changed) == len(before) == (count or total)
    assert len(identical) == len(kept) == total - len(before)
    assert int(state.step) == 4


def test_gradients_and_optimizer_state_hold_trainable_paths_only():
    model = _model()
    seen = []

    class Spy:
        def init(self, params):
            return {"slots": params}

        def update(self, grads, opt_state, params):
            seen.append(sorted(tree.flatten(grads)))
            return jax.tree.map(jnp.zeros_like, grads), opt_state

    state, frozen = _start(model, Spy())
    step = _step(model, Spy())
    state, _ = jax.eval_shape(step, state, frozen, _batches(1)[0])
    assert seen == [[PROMPT]]
    assert sorted(tree.flatten(state.opt_state["slots"])) == [PROMPT]


@pytest.mark.parametrize("factor", [None, "NUM_REAL_TARGET_TOKENS", "AVERAGE_PER_SEQUENCE"])
def test_four_microbatches_equal_the_full_batch(factor):
    model, tx = _model(), _paper(1_100_000)
    config = LossConfig(loss_normalizing_factor=factor)
    state, frozen = _start(model, tx)
    batch = _batches(1)[0]
    results = [
        jax.jit(_step(model, tx, n, loss_config=config))(state, frozen, batch) for n in (1, 4)
    ]
    (whole, whole_metrics), (parts, parts_metrics) = results
    assert set(whole_metrics) == set(parts_metrics)
    for name in whole_metrics:
        np.testing.assert_allclose(
            whole_metrics[name], parts_metrics[name], rtol=1e-5, err_msg=name
        )
    v_whole, v_parts = jax.tree.leaves(whole.opt_state), jax.tree.leaves(parts.opt_state)
    for a, b in zip(v_whole, v_parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-12)


def test_microbatches_deal_rows_out_in_turn():
    parts = interleave({"x": jnp.arange(6)}, 2)["x"]
    np.testing.assert_array_equal(parts, [[0, 2, 4], [1, 3, 5]])


def test_dropout_is_fixed_by_key_and_step():
    model, tx = _model(dropout_rate=0.3), _paper()
    state, frozen = _start(model, tx)
    step = jax.jit(_step(model, tx))
    batch = _batches(1)[0]
    loss = lambda s: float(step(s, frozen, batch)[1]["loss"])  # noqa: E731
    assert loss(state) == loss(state)
    assert loss(state) != loss(state.replace(step=jnp.int32(1)))
    other = state.replace(rng=jax.random.key_data(jax.random.key(2)))
    assert loss(state) != loss(other)


def test_bfloat16_frozen_weights_leave_the_prompt_float32():
    model, tx = _model(dtype="bfloat16"), _paper()
    state, frozen = _start(model, tx)
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen)
    new, metrics = jax.jit(_step(model, tx))(state, frozen, _batches(1)[0])
    assert {x.dtype for x in tree.flatten(new.trainable).values()} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32
    assert np.isfinite(float(metrics["loss"]))
