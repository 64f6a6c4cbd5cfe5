"""Our side trains on the texts of the other side, batch by batch."""

import itertools

import numpy as np

from prompt_tuning.data import context
from prompt_tuning.launch.benchmarks.speed import ours_side, texts
from prompt_tuning.launch.benchmarks.speed.rows import ROWS


def test_batches_hold_the_texts_that_peft_trains_on():
    work = ROWS["train_rte"].work
    lengths = texts.lengths(work.data_set, work.num_examples, work.inputs)
    expected = lengths.reshape(-1, work.batch_size)
    with context.overriding():
        batches = list(itertools.islice(ours_side._train_batches(work), len(expected)))
    found = [(batch["encoder_input_tokens"] > 0).sum(axis=1) for batch in batches]
    np.testing.assert_array_equal(found, expected)
