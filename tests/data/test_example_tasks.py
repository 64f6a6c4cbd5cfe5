"""The number of each example's task: the same in training, in evaluation and in prediction."""

import dataclasses
import itertools

import numpy as np
import pytest
import seqio

from prompt_tuning.data import (
    batches,
    context,
    dataset_checks,
    evaluation,
    inference_examples,
    pipelines,
    registry,
)
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.errors import DataError
from prompt_tuning.types import TASK
from tests.data.local_data import write_data

TASKS = ("super_glue_rte_v102", "super_glue_cb_v102")
MIXTURE = "two_of_super_glue"


@pytest.fixture(autouse=True)
def run_vocabulary(tiny_vocabulary):
    context.set_context(vocabulary=seqio.SentencePieceVocabulary(str(tiny_vocabulary)))
    yield
    context.set_context()


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    cfg = DatasetConfig(
        mixture_or_task_name=MIXTURE,
        task_feature_lengths={"inputs": 24, "targets": 8},
        split="train",
        batch_size=4,
        shuffle=True,
        module="prompt_tuning.data.super_glue",
        data_dir=str(write_data(tmp_path_factory.mktemp("data"))),
        tasks=tuple((name,) for name in TASKS),
    )
    batches.load_task_module(cfg)
    registry.replace_mixture(MIXTURE, {TASKS[0]: 1.0, TASKS[1]: 2.0})
    return cfg


def _rows(cfg, count, **how):
    read = list(itertools.islice(batches.train_batches(cfg, seed=1, **how), count))
    return {name: np.concatenate([batch[name] for batch in read]) for name in read[0]}


def _inputs(cfg, name):
    """The inputs of the examples of one task."""
    alone = dataclasses.replace(cfg, mixture_or_task_name=name, tasks=(), shuffle=False)
    read = batches.eval_batches(alone)
    return {row.tobytes() for batch in read for row in batch["encoder_input_tokens"] if row.any()}


def test_training_rows_have_their_tasks_numbers_and_are_what_they_are_without(mixture):
    rows = _rows(mixture, 12)
    without = _rows(dataclasses.replace(mixture, tasks=()), 12)
    assert set(rows) == {*without, TASK} and rows[TASK].dtype == np.int32
    for name, x in without.items():
        np.testing.assert_array_equal(rows[name], x)
    of_tasks = [_inputs(mixture, name) for name in TASKS]
    assert not of_tasks[0] & of_tasks[1] and set(rows[TASK]) == {0, 1}
    for tokens, number in zip(rows["encoder_input_tokens"], rows[TASK], strict=True):
        assert tokens.tobytes() in of_tasks[number]
    # From the middle on it is the same stream, and so it is grouped by length.
    later = _rows(mixture, 6, start_example=24)
    np.testing.assert_array_equal(later[TASK], rows[TASK][24:])
    grouped = _rows(dataclasses.replace(mixture, length_window=3), 12)
    for tokens, number in zip(grouped["encoder_input_tokens"], grouped[TASK], strict=True):
        assert tokens.tobytes() in of_tasks[number]


def test_evaluation_and_prediction_read_the_same_numbers(mixture):
    cfg = dataclasses.replace(mixture, split="validation", shuffle=False)
    one = dataclasses.replace(cfg, mixture_or_task_name=TASKS[1])
    read = list(batches.eval_batches(one))
    real = np.concatenate([batch["encoder_input_tokens"].any(axis=1) for batch in read])
    assert (np.concatenate([batch[TASK] for batch in read])[real] == 1).all() and real.any()
    numbers = [example.features[TASK] for example in inference_examples.from_task(cfg)]
    assert set(numbers) == {0, 1}
    evaluator = evaluation.make_evaluator(cfg, log_dir=None)
    assert evaluator is not None
    for number, name in enumerate(TASKS):
        examples = pipelines.numpy_iterator(evaluator.cached_model_datasets[name])
        found = {int(features[TASK]) for _, features in examples}
        assert found == {number}


def test_a_task_that_is_not_told_apart_is_refused_by_name(mixture):
    cfg = dataclasses.replace(mixture, tasks=(("super_glue_cb_v101", "another"), (TASKS[0],)))
    text = "1 of 2 tasks have no prompt of their own: got .*cb_v102.*METHOD_TASKS.*Closest matches: .*cb_v101"
    with pytest.raises(DataError, match=text):
        dataset_checks.check_dataset(cfg, trains=True)
