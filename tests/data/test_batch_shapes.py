"""Batches cut to few widths: what is cut off is padding, and the update is that of the whole batch."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from prompt_tuning import tree
from prompt_tuning.data.batch_shapes import BatchShapes, ladder
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner, standard_logical_axis_rules
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.losses import LossConfig
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_train_step
from tests.helpers import tiny_config

LENGTHS = {"inputs": 64, "targets": 40}
SHAPES = BatchShapes(4, LENGTHS, prompt_length=3)


def batch_of(inputs: list[int], targets: list[int], lengths=LENGTHS) -> dict[str, np.ndarray]:
    """A batch of random ids whose rows have these lengths."""
    rng = np.random.default_rng(0)

    def rows(sizes, width):
        ids = rng.integers(2, 250, (len(sizes), width), dtype=np.int32)
        return np.where(np.arange(width) < np.array(sizes)[:, None], ids, 0).astype(np.int32)

    target_ids = rows(targets, lengths["targets"])
    return {
        "encoder_input_tokens": rows(inputs, lengths["inputs"]),
        "decoder_input_tokens": np.pad(target_ids[:, :-1], ((0, 0), (1, 0))),
        "decoder_target_tokens": target_ids,
        "decoder_loss_weights": (target_ids > 0).astype(np.int32),
    }


BATCH = batch_of([5, 17, 30, 2], [3, 9, 1, 16])


@pytest.mark.parametrize(
    ("length", "count", "multiple", "widths"),
    [
        (320, 12, 16, [32 * i for i in range(1, 11)]),
        (512, 12, 16, [32, 80, 128, 176, 224, 272, 320, 368, 416, 464, 512]),
        (8, 4, 8, [8]),
        (16, 4, 8, [8, 16]),
        (20, 4, 16, [4, 20]),
        (100, 4, 48, [4, 52, 100]),
        (12, 16, 4, [4, 8, 12]),
    ],
)
def test_widths_are_few_and_divide_as_the_full_one(length, count, multiple, widths):
    assert ladder(length, count, multiple) == widths
    assert all((length - width) % multiple == 0 for width in widths)


def test_a_batch_is_cut_to_its_longest_row_rounded_up():
    cut = SHAPES.fit(BATCH)
    assert {name: x.shape for name, x in cut.items()} == {
        "encoder_input_tokens": (4, 32),
        **{
            f"decoder_{name}": (4, 24) for name in ("input_tokens", "target_tokens", "loss_weights")
        },
    }
    for name, x in cut.items():
        np.testing.assert_array_equal(x, BATCH[name][:, : x.shape[1]])
        assert not BATCH[name][:, x.shape[1] :].any()
    assert SHAPES.describe(cut) == "4 rows of 32 inputs and 24 targets"
    full = batch_of([64, 1, 1, 1], [40, 1, 1, 1])
    assert {x.shape[1] for x in SHAPES.fit(full).values()} == {64, 40}
    assert {x.shape[1] for x in SHAPES.fit(batch_of([0] * 4, [0] * 4)).values()} == {16, 8}


def test_counts_are_those_of_real_positions():
    counts = SHAPES.count(SHAPES.fit(BATCH))
    assert counts == {
        "examples": 4,
        "real_tokens": 54 + 29,
        "real_positions": 54 + 29 + 4 * 3,
        "positions": 4 * (3 + 32 + 24),
    }
    # A row of zeros that fills up a batch is no example.
    assert SHAPES.count(batch_of([5, 0], [2, 0]))["examples"] == 1


@pytest.fixture(scope="module")
def model():
    """A tiny model with a prompt, its trainable and frozen parameters."""
    module = T5(tiny_config(dropout_rate=0.0), prompt=PromptConfig(length=3))
    found = EncoderDecoderModel(module, None, None)
    params = tree.flatten(jax.jit(found.init)(jax.random.key(0)))
    trainable = {PROMPT_PATH: params.pop(PROMPT_PATH)}
    return found, tree.unflatten(trainable), tree.unflatten(params)


def update(
    model,
    batch,
    *,
    factor=None,
    num_microbatches=1,
    num_targets=None,
    widths=None,
    dropout_rate=0.0,
):
    """The new prompt, by an update as large as the gradient, and the metrics of a step."""
    found, trainable, frozen = model
    config = dataclasses.replace(found.config, dropout_rate=dropout_rate)
    found = dataclasses.replace(found, module=found.module.clone(config=config))
    tx = optax.sgd(1.0)
    step = make_train_step(
        functools.partial(found.apply, widths=widths),
        tx,
        learning_rate_fn=lambda step: 1.0,
        loss_config=LossConfig(loss_normalizing_factor=factor),
        num_microbatches=num_microbatches,
        num_targets=num_targets,
    )
    state = TrainState(
        step=np.int32(0),
        trainable=trainable,
        opt_state=tx.init(trainable),
        rng=jax.random.key_data(jax.random.key(1)),
    )
    state, metrics = jax.jit(step)(state, frozen, batch)
    return np.asarray(tree.flatten(state.trainable)[PROMPT_PATH]), jax.device_get(metrics)


@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
# The second counts padding, also what is cut off.
@pytest.mark.parametrize(
    ("factor", "dropout_rate"), [(None, 0.3), ("NUM_TOTAL_TARGET_TOKENS", 0.0)]
)
def test_the_update_of_a_cut_batch_is_that_of_the_whole_one(model, factor, dropout_rate):
    before = np.asarray(tree.flatten(model[1])[PROMPT_PATH])
    how = {"factor": factor, "dropout_rate": dropout_rate}
    expected, whole = update(model, BATCH, **how)
    known = {"num_targets": SHAPES.num_targets, "widths": SHAPES.widths}
    found, cut = update(model, SHAPES.fit(BATCH), **how, **known)
    largest = np.abs(expected - before).max()
    assert largest > 0
    assert np.abs(found - expected).max() <= 1e-6 * max(1.0, largest)
    assert set(cut) == set(whole)
    for name, value in whole.items():
        assert cut[name] == pytest.approx(value, rel=1e-6), name


def test_rules_that_spread_positions_keep_widths_divisible():
    assert PjitPartitioner().num_parts("length") == 1
    rules = standard_logical_axis_rules()
    spread = tuple((name, "model" if name == "length" else axis) for name, axis in rules)
    partitioner = PjitPartitioner(num_partitions=2, logical_axis_rules=spread)
    assert partitioner.num_parts("length") == 2
    assert partitioner.num_parts("batch") == partitioner.mesh.shape["data"]
