"""Targets that begin with a sentinel: what the model learns, and what is scored."""

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches, context, dataset_checks, verbalizers
from prompt_tuning.data.text.sentinel_targets import register_with_sentinel, without_sentinel
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.errors import DataError
from tests.data.local_data import write_data

NAME = "taskless_super_glue_rte_v102"


def config(data_dir, name, length):
    return batches.DatasetConfig(
        name,
        {"inputs": 32, "targets": length},
        split="validation",
        batch_size=4,
        module="prompt_tuning.tasks.sentinel_targets",
        data_dir=str(data_dir),
    )


def test_targets_are_t5s_with_a_sentinel_before_them(tmp_path, vocabulary):
    data_dir = write_data(tmp_path)
    with_sentinel = next(batches.eval_batches(config(data_dir, f"{NAME}_sentinel", 24)))
    plain = next(batches.eval_batches(config(data_dir, NAME, 24)))
    np.testing.assert_array_equal(
        with_sentinel["encoder_input_tokens"], plain["encoder_input_tokens"]
    )
    targets = with_sentinel["decoder_target_tokens"]
    assert (targets[:, 0] == vocabulary.vocab_size - 1).all()
    np.testing.assert_array_equal(targets[:, 1:], plain["decoder_target_tokens"][:, :-1])
    # The label is spelt as its text would be.
    text = "<extra_id_0> entailment"
    assert text in (verbalizers.get_verbalizers(f"{NAME}_sentinel") or ())
    assert targets[0][targets[0] > 1].tolist() == list(vocabulary.encode(text))


def test_predictions_lose_the_sentinel_before_they_are_scored(vocabulary):
    name = register_with_sentinel(NAME)
    assert name == f"{NAME}_sentinel" == register_with_sentinel(NAME)
    task, plain = seqio.TaskRegistry.get(name), seqio.TaskRegistry.get(NAME)
    for text in ("<extra_id_0> not_entailment", "<extra_id_0>not_entailment", "not_entailment"):
        assert task.postprocess_fn(text) == plain.postprocess_fn("not_entailment") == 1
    assert task.postprocess_fn("not_entailment <extra_id_0>") == -1
    assert without_sentinel("<extra_id_1> x") == "<extra_id_1> x"
    # The authors' code drops blanks in front where there is no sentinel too, and keeps those behind.
    assert without_sentinel(" x ") == without_sentinel("<extra_id_0> x ") == "x "
    assert without_sentinel(3) == 3
    assert [fn.__name__ for fn in task.metric_fns] == [fn.__name__ for fn in plain.metric_fns]
    # What a model writes is text like this.
    ids = vocabulary.encode("<extra_id_0> not_entailment")
    assert task.postprocess_fn(vocabulary.decode(ids)) == 1


def test_the_sentinel_counts_when_labels_are_fitted(tmp_path, vocabulary):
    data_dir = write_data(tmp_path)
    length = len(vocabulary.encode("not_entailment")) + 1
    dataset_checks.check_dataset(config(data_dir, NAME, length))
    with pytest.raises(DataError, match=f"TASK_FEATURE_LENGTHS..targets.. to {length + 1}"):
        dataset_checks.check_dataset(config(data_dir, f"{NAME}_sentinel", length))


def test_a_vocabulary_without_sentinels_is_refused(tmp_path, tiny_vocabulary):
    context.set_context(vocabulary=sentencepiece_vocabulary(str(tiny_vocabulary), extra_ids=0))
    with pytest.raises(DataError, match="has no sentinels"):
        next(batches.eval_batches(config(write_data(tmp_path), f"{NAME}_sentinel", 24)))
