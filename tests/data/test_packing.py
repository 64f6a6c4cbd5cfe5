"""Packed rows hold the batch's examples, each behind places for its prompt, and give the same update."""

import dataclasses

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data import packing
from prompt_tuning.data.batch_shapes import BatchShapes
from prompt_tuning.errors import ConfigError
from prompt_tuning.params.names import PROMPT_PATH
from tests.data.test_batch_shapes import BATCH, LENGTHS, batch_of, model, update

__all__ = ["model"]
PACKED = BatchShapes(4, LENGTHS, prompt_length=3, packs=True)


def test_rows_hold_every_example_behind_its_places():
    packed = packing.pack(BATCH, prompt_length=3, width=40, target_width=20, row_counts=[1, 3, 4])
    sides = {"encoder": 40, "decoder": 20}
    assert {name: x.shape for name, x in packed.items()} == {
        name: (3, sides[name[:7]])
        for name in (*BATCH, packing.PROMPT_POSITIONS, *(f"{s}_segment_ids" for s in sides))
        + tuple(f"{s}_positions" for s in sides)
    }
    assert {x.dtype for x in packed.values()} == {np.dtype(np.int32)}
    found = []
    for row in range(3):
        segments = packed["encoder_segment_ids"][row]
        for segment in range(1, segments.max() + 1):
            inside, target = segments == segment, packed["decoder_segment_ids"][row] == segment
            np.testing.assert_array_equal(
                packed[packing.PROMPT_POSITIONS][row][inside][:4], [1, 2, 3, 0]
            )
            assert not packed["encoder_input_tokens"][row][inside][:3].any()
            np.testing.assert_array_equal(
                packed["encoder_positions"][row][inside], np.arange(inside.sum())
            )
            tokens = packed["encoder_input_tokens"][row][inside][3:]
            example = int(np.flatnonzero(BATCH["encoder_input_tokens"][:, 0] == tokens[0])[0])
            found.append(example)
            for name, x in BATCH.items():
                places = inside if name[:7] == "encoder" else target
                real = packed[name][row][places][3 * (name[:7] == "encoder") :]
                np.testing.assert_array_equal(real, x[example, : len(real)])
                # The shifted targets have one more id, where padding begins.
                assert name == "decoder_input_tokens" or not x[example, len(real) :].any()
    assert sorted(found) == [0, 1, 2, 3]


def test_what_does_not_fit_begins_another_row():
    # On the encoder's side two of these fit in a row, on the decoder's one.
    batch = batch_of([5, 5], [12, 12])
    packed = packing.pack(batch, prompt_length=3, width=20, target_width=20, row_counts=[1, 2])
    assert packed["encoder_segment_ids"].max(axis=1).tolist() == [1, 1]
    # The rows that replicas need and no example fills are padding.
    spare = packing.pack(batch, prompt_length=3, width=20, target_width=30, row_counts=[2])
    assert spare["encoder_segment_ids"].max(axis=1).tolist() == [2, 0]


def test_shapes_are_few_and_counts_are_those_of_the_examples():
    cut = PACKED.fit(BATCH)
    # 54 tokens and 12 places in rows of 67 positions.
    assert PACKED.describe(cut) == "1 rows of 67 inputs and 40 targets"
    counts, alone = PACKED.count(cut), dataclasses.replace(PACKED, packs=False).count(BATCH)
    for name in ("examples", "real_tokens", "real_positions"):
        assert counts[name] == alone[name], name
    assert counts["positions"] == 67 + 40
    replicas = dataclasses.replace(PACKED, row_multiple=2)
    assert len(replicas.fit(BATCH)["encoder_input_tokens"]) == 2


@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
@pytest.mark.parametrize(
    ("factor", "num_microbatches"),
    [
        (None, 1),
        ("NUM_REAL_TARGET_TOKENS", 2),
        ("NUM_TOTAL_TARGET_TOKENS", 1),
        ("AVERAGE_PER_SEQUENCE", 2),
    ],
)
def test_the_update_of_a_packed_batch_is_that_of_its_examples(model, factor, num_microbatches):  # noqa: F811
    shapes = dataclasses.replace(PACKED, row_multiple=num_microbatches)
    batch = batch_of([5, 17, 30, 40], [3, 9, 1, 16])
    packed = shapes.fit(batch)
    assert len(packed["encoder_input_tokens"]) == 2
    before = np.asarray(tree.flatten(model[1])[PROMPT_PATH])
    expected, whole = update(model, batch, factor=factor)
    found, metrics = update(
        model,
        packed,
        factor=factor,
        num_microbatches=num_microbatches,
        num_targets=shapes.num_targets,
    )
    largest = np.abs(expected - before).max()
    assert largest > 1e-4
    assert np.abs(found - expected).max() <= 1e-5 * largest
    for name in ("loss", "z_loss", "correct", "target_tokens", "all_tokens"):
        assert metrics[name] == pytest.approx(whole[name], rel=1e-6), name


def test_prompts_of_rows_do_not_go_with_packing(model):  # noqa: F811
    found, trainable, frozen = model
    params = tree.merge(trainable, frozen)
    table = {"prompts": np.zeros((2, 3, 32), np.float32), "mask": np.ones((2, 3), np.int32)}
    batch = {**PACKED.fit(BATCH), "encoder_prompt_index": np.zeros(1, np.int32)}
    with pytest.raises(ConfigError, match=r"one prompt for all.*pack = False"):
        jax.eval_shape(found.apply, {**params, "prompt_table": table}, batch)
