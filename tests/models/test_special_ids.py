"""Batches as pipelines make them, in the ids of a model that has others."""

import numpy as np

from prompt_tuning.models.special_ids import in_ids_of
from prompt_tuning.types import SpecialIds

BATCH = {
    "encoder_input_tokens": np.asarray([[7, 0, 8, 2, 0, 0]]),
    # Two targets in a row, each behind a start.
    "decoder_input_tokens": np.asarray([[0, 5, 0, 6, 0]]),
    "decoder_target_tokens": np.asarray([[5, 2, 6, 2, 0]]),
    "decoder_loss_weights": np.asarray([[1, 1, 1, 1, 0]]),
}


def test_t5s_ids_leave_a_batch_as_it_is():
    changed = in_ids_of(SpecialIds(), BATCH)
    assert all(changed[name] is x for name, x in BATCH.items())


def test_starts_are_put_where_targets_begin():
    changed = in_ids_of(SpecialIds(start=3), BATCH)
    assert np.asarray(changed["decoder_input_tokens"]).tolist() == [[3, 5, 3, 6, 0]]
    assert changed["encoder_input_tokens"] is BATCH["encoder_input_tokens"]


def test_only_what_is_behind_a_row_becomes_padding():
    changed = in_ids_of(SpecialIds(pad=1, eos=2), BATCH)
    assert np.asarray(changed["encoder_input_tokens"]).tolist() == [[7, 0, 8, 2, 1, 1]]
    assert np.asarray(changed["decoder_target_tokens"]).tolist() == [[5, 2, 6, 2, 1]]
    assert changed["decoder_input_tokens"] is BATCH["decoder_input_tokens"]
