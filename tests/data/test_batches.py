"""The stream of batches: deterministic, resumable, the same for every process; and the checks before a run."""

import collections
import dataclasses
import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import batches as datasets
from prompt_tuning.data import context, dataset_checks, inference_examples
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.verbalizers import get_verbalizers
from prompt_tuning.errors import ConfigError, DataError
from tests.data import small_mixture
from tests.data.local_data import write_data, write_jsonl
from tests.helpers import REPO

FEATURES = {
    "encoder_input_tokens": 24,
    "decoder_input_tokens": 24,
    "decoder_target_tokens": 24,
    "decoder_loss_weights": 24,
}
LENGTHS = {"inputs": 24, "targets": 24}


@pytest.fixture(autouse=True)
def run_vocabulary(tiny_vocabulary):
    context.set_context(vocabulary=seqio.SentencePieceVocabulary(str(tiny_vocabulary)))
    yield context.get_vocabulary()
    context.set_context()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture
def rte(data_dir):
    return DatasetConfig(
        mixture_or_task_name="taskless_super_glue_rte_v102",
        task_feature_lengths=LENGTHS,
        split="train",
        batch_size=4,
        shuffle=True,
        module="prompt_tuning.data.super_glue",
        data_dir=data_dir,
    )


def take(batches, count):
    return list(itertools.islice(batches, count))


def rows(batches):
    """The batches' rows, one array per feature."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_a_batch_has_the_models_features(rte, run_vocabulary):
    batch = next(datasets.train_batches(rte, seed=0))
    assert {name: x.shape for name, x in batch.items()} == {n: (4, w) for n, w in FEATURES.items()}
    assert {x.dtype for x in batch.values()} == {np.dtype(np.int32)}
    targets = batch["decoder_target_tokens"]
    np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 1:], targets[:, :-1])
    np.testing.assert_array_equal(batch["decoder_input_tokens"][:, 0], 0)
    np.testing.assert_array_equal(batch["decoder_loss_weights"], targets > 0)
    # Each row ends in one EOS behind its last token, also where the input was cut.
    assert ((batch["encoder_input_tokens"] == run_vocabulary.eos_id).sum(axis=1) == 1).all()
    assert ((targets == run_vocabulary.eos_id).sum(axis=1) == 1).all()


def test_the_stream_is_seqios_own(rte, data_dir):
    ours = rows(take(datasets.train_batches(rte, seed=3), 30))
    context.set_context(vocabulary=context.get_vocabulary(), data_dir=data_dir)
    ds = seqio.get_dataset(
        rte.mixture_or_task_name,
        LENGTHS,
        seqio.EncDecFeatureConverter(pack=False),
        shuffle=True,
        num_epochs=None,
        seed=3,
        batch_size=120,
        verbose=False,
    )
    theirs = next(ds.as_numpy_iterator())
    assert theirs.keys() == ours.keys() == FEATURES.keys()
    for name in FEATURES:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_the_seed_decides_the_order(rte):
    def first(cfg, seed):
        return rows(take(datasets.train_batches(cfg, seed=seed), 10))["encoder_input_tokens"]

    one = first(rte, 1)
    assert (one == first(rte, 1)).all()
    assert (one != first(rte, 2)).any()
    in_order = dataclasses.replace(rte, shuffle=False)
    assert (first(in_order, 1) == first(in_order, 2)).all()


@pytest.mark.parametrize(("pack", "starts"), [(False, (8, 203)), (True, (7,))])
def test_skipping_continues_exactly(rte, pack, starts):
    cfg = dataclasses.replace(
        rte, pack=pack, task_feature_lengths={"inputs": 64, "targets": 64} if pack else LENGTHS
    )
    whole = rows(take(datasets.train_batches(cfg, seed=5), 60))
    for start in starts:
        rest = rows(take(datasets.train_batches(cfg, seed=5, start_example=start), 5))
        assert len(rest) == (8 if pack else 4)
        for name, x in rest.items():
            np.testing.assert_array_equal(x, whole[name][start : start + len(x)])
    if pack:
        assert whole["encoder_segment_ids"].max() > 1


def test_a_grouped_stream_continues_in_the_middle_of_a_window(rte):
    cfg = dataclasses.replace(rte, length_window=3)
    whole = take(datasets.train_batches(cfg, seed=5), 30)
    for step in (3, 4, 23):
        rest = take(datasets.train_batches(cfg, seed=5, start_example=4 * step), 4)
        for ours, expected in zip(rest, whole[step : step + 4], strict=True):
            for name, x in ours.items():
                np.testing.assert_array_equal(x, expected[name])
    # A window holds the examples that it would hold in the order of the stream.
    plain = rows(take(datasets.train_batches(rte, seed=5), 30))["encoder_input_tokens"]
    grouped = rows(whole)["encoder_input_tokens"]
    assert (grouped != plain).any()
    for window in range(10):
        inside = slice(12 * window, 12 * window + 12)
        assert sorted(map(tuple, grouped[inside])) == sorted(map(tuple, plain[inside]))
    with pytest.raises(ConfigError, match="length_window is not a number of batches"):
        dataclasses.replace(rte, length_window=0)


def test_a_mixture_continues_exactly(rte):
    mixture = dataclasses.replace(
        rte,
        mixture_or_task_name=small_mixture.MIXTURE,
        module="tests.data.small_mixture",
    )
    whole = rows(take(datasets.train_batches(mixture, seed=5), 60))
    # The first in the first epoch, the second in a later one.
    for start in (40, 203):
        rest = rows(take(datasets.train_batches(mixture, seed=5, start_example=start), 5))
        for name, x in rest.items():
            np.testing.assert_array_equal(x, whole[name][start : start + 20])
    # Whose turn it is follows from the position too: the stream is not one task after another.
    assert (rest["encoder_input_tokens"] != whole["encoder_input_tokens"][:20]).any()


STREAM_PROGRAM = """
import sys, seqio
from prompt_tuning.data import context
from tests.data import test_batches
context.set_context(vocabulary=seqio.SentencePieceVocabulary(sys.argv[1]))
print("digest", test_batches.digest(sys.argv[2]))
"""


def digest(data_dir):
    """A hash of 40 batches of the mixture."""
    cfg = DatasetConfig(
        small_mixture.MIXTURE,
        LENGTHS,
        "train",
        4,
        shuffle=True,
        module="tests.data.small_mixture",
        data_dir=data_dir,
    )
    state = hashlib.sha256()
    for batch in take(datasets.train_batches(cfg, seed=11), 40):
        for name in FEATURES:
            state.update(batch[name].tobytes())
    return state.hexdigest()


def test_another_process_gets_the_same_stream(data_dir, tiny_vocabulary):
    done = subprocess.run(
        [sys.executable, "-c", STREAM_PROGRAM, str(tiny_vocabulary), data_dir],
        # Another hash seed: nothing may depend on the order of sets.
        env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONHASHSEED": "7"},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["digest", digest(data_dir)]


def test_a_mixture_trains_its_tasks_equally(data_dir, run_vocabulary):
    cfg = DatasetConfig(
        small_mixture.MIXTURE,
        {"inputs": 48, "targets": 12},
        "train",
        60,
        shuffle=True,
        module="tests.data.small_mixture",
        data_dir=data_dir,
    )
    targets = rows(take(datasets.train_batches(cfg, seed=0), 10))["decoder_target_tokens"]
    counts = collections.Counter(run_vocabulary.decode(row.tolist()) for row in targets)
    shares = [
        sum(counts[word] for word in get_verbalizers(task) or ()) for task in small_mixture.TASKS
    ]
    assert sum(shares) == 600
    # 600 draws of one in three: the standard deviation is 11.5.
    assert max(abs(count - 200) for count in shares) < 50, shares


def test_evaluation_reads_the_split_once_and_fills_up_the_last_batch(rte):
    cfg = dataclasses.replace(rte, split="validation", shuffle=False, batch_size=2)
    batches = list(datasets.eval_batches(cfg))
    assert [len(batch["encoder_input_tokens"]) for batch in batches] == [2, 2, 2]
    real = [(batch["decoder_loss_weights"].sum(axis=1) > 0).sum() for batch in batches]
    assert real == [2, 2, 1]
    assert not any(x[1].any() for x in batches[2].values())
    assert len(list(datasets.eval_batches(cfg, num_batches=2))) == 2
    with pytest.raises(ConfigError, match="TASK_FEATURE_LENGTHS"):
        datasets.eval_batches(dataclasses.replace(cfg, task_feature_lengths=None))


def test_no_iterator_waits_for_the_autotuner_when_it_is_dropped(rte, monkeypatch):
    """tf.data deletes an iterator only at its autotuner's next turn, which comes up to a minute later."""
    autotuned, iterate = [], tf.data.Dataset.as_numpy_iterator

    def spy(ds):
        autotuned.append(ds.options().autotune.enabled)
        return iterate(ds)

    monkeypatch.setattr(tf.data.Dataset, "as_numpy_iterator", spy)
    once = dataclasses.replace(rte, split="validation", shuffle=False)
    next(datasets.train_batches(rte, seed=0))
    next(datasets.eval_batches(once))
    next(inference_examples.from_task(once))
    assert len(autotuned) >= 3 and set(autotuned) == {False}


def test_evaluation_names_the_tasks_that_have_the_split(data_dir):
    cfg = DatasetConfig(
        small_mixture.MIXTURE,
        LENGTHS,
        "validation",
        2,
        module="tests.data.small_mixture",
    )
    assert datasets.eval_task_names(cfg) == list(small_mixture.TASKS)


def test_good_configurations_pass_the_check(rte, data_dir):
    dataset_checks.check_dataset(rte)
    dataset_checks.check_dataset(
        dataclasses.replace(rte, task_feature_lengths=None, split="validation")
    )
    # The data_dir of the run serves where the configuration names none.
    context.set_context(vocabulary=context.get_vocabulary(), data_dir=data_dir)
    dataset_checks.check_dataset(dataclasses.replace(rte, data_dir=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mixture_or_task_name": "taskles_super_glue_rte"}, ["taskless_super_glue_rte_v102"]),
        (
            {"module": "prompt_tuning.data.superglue"},
            ["'prompt_tuning.data.super_glue'", "PYTHONPATH"],
        ),
        ({"split": "val"}, ["'val'", "validation", "no such split"]),
        ({"split": "test"}, ["test.jsonl", "'test'", "empty"]),
        ({"task_feature_lengths": {}}, ["TASK_FEATURE_LENGTHS"]),
        ({"task_feature_lengths": {"inputs": 8}}, ["'targets'", "None"]),
        ({"task_feature_lengths": {"inputs": "8", "targets": 24}}, ["'inputs'", "'8'"]),
        ({"batch_size": 0}, ["BATCH_SIZE"]),
        ({"data_dir": "/nowhere"}, ["/nowhere/RTE", "original .jsonl files"]),
    ],
)
def test_a_wrong_configuration_is_named(rte, change, words):
    # The expected module name is quoted only in the closest matches' stead, so compare without quotes.
    is_setting = change.keys() & {"task_feature_lengths", "batch_size"}
    with pytest.raises(ConfigError if is_setting else DataError) as error:
        dataset_checks.check_dataset(dataclasses.replace(rte, **change))
    for word in words:
        assert word.strip("'") in str(error.value), str(error.value)


def test_without_a_module_the_error_asks_for_it(rte):
    cfg = dataclasses.replace(rte, module=None, mixture_or_task_name="no_such_task")
    with pytest.raises(DataError, match="set MIXTURE_OR_TASK_MODULE"):
        datasets.get_task(cfg)


def test_a_module_that_misses_a_package_keeps_its_own_error(rte, tmp_path, monkeypatch):
    (tmp_path / "tasks_of_a_user.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        datasets.load_task_module(dataclasses.replace(rte, module="tasks_of_a_user"))


def test_a_module_that_imports_what_has_moved_is_told_where_to(rte, tmp_path, monkeypatch):
    (tmp_path / "older_tasks_of_a_user.py").write_text("import prompt_tuning.data.file_tasks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DataError, match=r"Closest matches: prompt_tuning.data.own.file_tasks"):
        datasets.load_task_module(dataclasses.replace(rte, module="older_tasks_of_a_user"))


def test_a_label_that_does_not_fit_is_reported_with_its_length(rte, run_vocabulary):
    needed = {t: len(run_vocabulary.encode(t)) + 1 for t in ("entailment", "not_entailment")}
    longest = needed["not_entailment"]
    assert longest > needed["entailment"]
    fits = {"inputs": 24, "targets": longest}
    dataset_checks.check_dataset(dataclasses.replace(rte, task_feature_lengths=fits))
    short = {"inputs": 24, "targets": longest - 1}
    with pytest.raises(DataError) as error:
        dataset_checks.check_dataset(dataclasses.replace(rte, task_feature_lengths=short))
    message = str(error.value)
    assert "'not_entailment'" in message and f"{longest} tokens" in message
    assert "TASK_FEATURE_LENGTHS['targets']" in message and f"got {longest - 1}" in message


def test_an_empty_file_is_reported_by_name(rte, tmp_path):
    path = write_jsonl(tmp_path / "RTE" / "train.jsonl", [])
    with pytest.raises(DataError, match="empty") as error:
        dataset_checks.check_dataset(dataclasses.replace(rte, data_dir=str(tmp_path)))
    assert str(path) in str(error.value)


def test_an_unreadable_vocabulary_is_reported(rte, tmp_path):
    context.set_context(vocabulary=seqio.SentencePieceVocabulary(str(tmp_path / "none.model")))
    with pytest.raises(DataError, match="none.model"):
        dataset_checks.check_dataset(rte)
