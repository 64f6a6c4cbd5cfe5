"""Rows of all choices of an example: what they hold, what a batch makes of them, what is refused."""

from typing import Any

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import batches, dataset_checks
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.choices import model_features
from prompt_tuning.data.registry import make_task, replace_mixture, replace_task
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.errors import DataError

LENGTHS = {"inputs": 6, "targets": 24}
ROWS = [
    ("Does the old mill stand?", "false", ["true", "false"]),
    ("What did she read?", " a good book", ["a letter", "a good book", "nothing"]),
    ("Is it true or false?", "true", ["true", "false"]),
]


def _task(name, rows, splits=("train",)):
    def source(split, shuffle_files, seed=None):
        del split, shuffle_files, seed
        asked, answers, of_each = zip(*rows, strict=True)
        ragged = tf.ragged.constant(list(of_each), dtype=tf.string)
        parts: Any = {"inputs": list(asked), "targets": list(answers), "answer_choices": ragged}
        ds = tf.data.Dataset.from_tensor_slices(parts)
        return ds.map(
            lambda row: {**row, "answer_choices": tf.convert_to_tensor(row["answer_choices"])}
        )

    task = make_task(
        name,
        source=seqio.FunctionDataSource(source, splits),
        to_text=lambda ds: ds,
        inputs_end=False,
    )
    replace_task(name, task)
    return name


def _config(name, **changes):
    settings = {"task_feature_lengths": LENGTHS, "split": "train", "batch_size": 3, **changes}
    return DatasetConfig(name, choices=True, **settings)


def _choices(vocabulary, row):
    """The texts that a row of targets holds."""
    ends = np.flatnonzero(row == EOS_ID)
    parts = np.split(row[: ends[-1] + 1], ends[:-1] + 1)
    return [vocabulary.decode(part.tolist()) for part in parts]


def test_a_row_has_the_right_choice_first_and_every_choice_its_end(vocabulary):
    batch = next(batches.eval_batches(_config(_task("asked", ROWS))))
    found = [_choices(vocabulary, row) for row in batch["decoder_target_tokens"]]
    assert found == [["false", "true"], ["a good book", "a letter", "nothing"], ["true", "false"]]
    # Inputs are cut, and end with EOS although the task's own do not.
    for ids, (text, _, _) in zip(batch["encoder_input_tokens"], ROWS, strict=True):
        whole = vocabulary.encode(text)[: LENGTHS["inputs"] - 1]
        assert ids.tolist() == [*whole, EOS_ID, *[0] * (LENGTHS["inputs"] - 1 - len(whole))]


def test_each_choice_is_decoded_by_itself():
    batch = {
        "encoder_input_tokens": np.ones((2, 3), np.int32),
        "decoder_target_tokens": np.array([[7, 8, 1, 9, 1, 0], [5, 1, 6, 4, 1, 0]], np.int32),
        "decoder_loss_weights": np.ones((2, 6), np.int32),
    }
    found = model_features(batch)
    assert found["decoder_segment_ids"].tolist() == [[1, 1, 1, 2, 2, 0], [1, 1, 2, 2, 2, 0]]
    assert found["decoder_input_tokens"].tolist() == [[0, 7, 8, 0, 9, 0], [0, 5, 0, 6, 4, 0]]
    assert found["decoder_loss_weights"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_the_stream_of_a_mixture_continues_and_leaves_out_what_has_no_training_split(vocabulary):
    del vocabulary
    names = [
        _task("asked", ROWS),
        _task("again", ROWS[::-1]),
        _task("scored", ROWS, ("validation",)),
    ]
    replace_mixture("asked_twice", dict.fromkeys(names, 1.0))
    cfg = _config("asked_twice", shuffle=True, batch_size=2)
    stream = batches.train_batches(cfg, seed=3)
    whole = [next(stream) for _ in range(6)]
    later = next(batches.train_batches(cfg, seed=3, start_example=10))
    for name, expected in whole[5].items():
        np.testing.assert_array_equal(later[name], expected)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("Who?", "she", ["he", "it"]), r"Example 3 of train of 'asked' \('Who\?'\) has an answer"),
        (("Who?", "she", ["she"]), r"\('Who\?'\) has nothing to choose from: .*answer_choices"),
        (
            ("Who?", "she", ["she", "a river, a mill, a bridge, a garden and forests"]),
            "do not fit into a row together",
        ),
    ],
)
def test_an_example_without_a_choice_to_make_is_refused_by_name(vocabulary, row, words):
    del vocabulary
    cfg = _config(_task("asked", [*ROWS, row]), batch_size=4)
    with pytest.raises(DataError, match=words):
        dataset_checks.check_dataset(cfg, trains=True)
    # Also where the check has not come so far.
    with pytest.raises(DataError, match="cannot be trained on with its choices"):
        next(batches.eval_batches(cfg))


def test_good_examples_pass_the_check(vocabulary):
    del vocabulary
    warnings = dataset_checks.check_dataset(_config(_task("asked", ROWS)), trains=True)
    assert all("inputs of train of 'asked' are cut at 6 tokens" in text for text in warnings)
