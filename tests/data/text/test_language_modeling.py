"""Tasks of language modelling: from text of one's own, beside T5's, and as a stream that resumes."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches as datasets
from prompt_tuning.data import context, dataset_checks, evaluation
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.registry import text_to_text_features
from prompt_tuning.data.text import language_modeling, objectives
from prompt_tuning.data.text.language_modeling import from_text_files
from prompt_tuning.data.text.text_sources import TextFilesDataSource
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.errors import ConfigError, DataError
from tests.helpers import ENGLISH, SHARED, requires_shared

NAME = "my_text"


@pytest.fixture(autouse=True)
def clean_registry(vocabulary):
    yield
    for name in (NAME, "c4_v220_taken"):
        if name in seqio.TaskRegistry.names():
            seqio.TaskRegistry.remove(name)


@pytest.fixture
def files(tmp_path):
    """Two files of JSON lines, and one of plain text."""
    for part in range(2):
        lines = [json.dumps({"body": text}) for text in ENGLISH[part::2]]
        (tmp_path / f"train-{part}.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "dev.txt").write_text("\n".join(ENGLISH[:5]))
    return tmp_path


def register(files, **kwargs):
    settings = {"train": f"{files}/train-*.jsonl", "text_field": "body", **kwargs}
    return from_text_files(NAME, **settings)


def config(split="train", **kwargs):
    settings = {
        "task_feature_lengths": {"inputs": 32, "targets": 32},
        "split": split,
        "batch_size": 4,
        "shuffle": split == "train",
        **kwargs,
    }
    return DatasetConfig(NAME, **settings)


def take(cfg, count, **kwargs):
    return list(itertools.islice(datasets.train_batches(cfg, seed=1, **kwargs), count))


def test_prefix_lm_on_text_of_ones_own(files, vocabulary):
    assert register(files, validation=f"{files}/dev.txt") == NAME
    dataset_checks.check_dataset(config())
    batches = list(datasets.eval_batches(config("validation")))
    encoder = np.concatenate([batch["encoder_input_tokens"] for batch in batches])
    decoder = np.concatenate([batch["decoder_target_tokens"] for batch in batches])
    tokens = [
        [t for t in (*inputs, *targets) if t > 1]
        for inputs, targets in zip(encoder, decoder, strict=True)
    ]
    expected = sum((vocabulary.encode(text) for text in ENGLISH[:5]), [])
    assert sum(tokens, []) == expected
    # Both sides of each split end in EOS.
    real = decoder[:, 0] != 0
    assert ((encoder[real] == 1).sum(axis=1) == 1).all()
    assert ((decoder[real] == 1).sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    "objective", sorted(language_modeling.OBJECTIVES.keys() - {"prefix_lm", "span_corruption"})
)
def test_every_other_objective_gives_batches(files, objective):
    register(files, objective=objective)
    batch = next(datasets.train_batches(config(), seed=0))
    assert (batch["decoder_target_tokens"] > 0).any(axis=1).all()
    sentinels = batch["encoder_input_tokens"] >= 256
    assert sentinels.any() == (objective != "token_deletion")


def test_the_stream_resumes_where_it_stopped(files):
    register(files, objective="span_corruption")
    # More than an epoch, which has 80 documents.
    straight = take(config(), 30)
    assert (straight[0]["encoder_input_tokens"] >= 256).any()
    resumed = take(config(), 5, start_example=25 * 4)
    for ours, theirs in zip(resumed, straight[25:], strict=True):
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_bytes_are_a_vocabulary_too(files):
    register(files)
    with context.overriding(vocabulary=seqio.ByteVocabulary()):
        batch = next(datasets.train_batches(config(), seed=0))
    text = bytes(t - 3 for t in batch["decoder_target_tokens"][0] if t > 2).decode()
    assert any(text in line for line in ENGLISH)


def test_a_malformed_line_stops_training_with_its_name(files):
    with (files / "train-1.jsonl").open("a") as file:
        file.write("{oops\n")
    register(files)
    lines = len(ENGLISH[1::2]) + 1
    with pytest.raises(DataError, match=f"train-1.jsonl:{lines} is not JSON"):
        take(config(), 100)


def test_checking_finds_a_wrong_field_and_targets_too_short(files):
    register(files, text_field="text")
    with pytest.raises(DataError, match=r"no text in 'text': got .*body.*text_field"):
        dataset_checks.check_dataset(config())
    register(files, objective="span_corruption")
    short = dataclasses.replace(config(), task_feature_lengths={"inputs": 512, "targets": 32})
    with pytest.raises(DataError, match=r"TASK_FEATURE_LENGTHS\['targets'\] to 114"):
        dataset_checks.check_dataset(short)


def test_evaluation_by_decoding_leaves_such_tasks_out(files):
    register(files)
    cfg = config(task_feature_lengths=None)
    dataset_checks.check_dataset(cfg)
    assert evaluation.make_evaluator(cfg, log_dir=None) is None


def test_registering_again_replaces(files):
    register(files)
    register(files, train=[f"{files}/train-0.jsonl"])
    assert len(seqio.TaskRegistry.get(NAME).source.list_shards("train")) == 1
    assert seqio.TaskRegistry.get(NAME).splits == ("train",)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"objective": "prefix-lm"}, "objective is unknown.*Closest matches: prefix_lm"),
        ({"train": None}, "has no files"),
        ({"train": []}, "has no files"),
        ({"name": "my text"}, "letters, digits"),
        ({"name": "taken"}, "another module has this name"),
    ],
)
def test_wrong_settings(files, kwargs, message):
    source = seqio.TextLineDataSource({"train": "x"})
    taken = seqio.Task("taken", source=source, preprocessors=[], output_features={})
    seqio.TaskRegistry.add_provider("taken", taken)
    settings = {"name": NAME, "train": f"{files}/dev.txt", **kwargs}
    try:
        with pytest.raises(ConfigError, match=message):
            from_text_files(settings.pop("name"), **settings)
    finally:
        seqio.TaskRegistry.remove("taken")


def add_foreign(to_targets):
    """Registers a task as T5 would."""

    def as_t5_does(ds):
        return seqio.preprocessors.rekey(ds, key_map={"inputs": None, "targets": to_targets})

    as_t5_does.__module__ = "t5.data.preprocessors"
    task = seqio.Task(
        "c4_v220_taken",
        source=TextFilesDataSource({"train": ["x.txt"]}),
        preprocessors=[
            as_t5_does,
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            objectives.prefix_lm,
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features=text_to_text_features(),
    )
    seqio.TaskRegistry.add_provider(task.name, task)


def test_t5s_task_of_the_same_text_makes_way_and_another_is_refused():
    def ours():
        source = TextFilesDataSource({"train": ["y.txt"]})
        return language_modeling.register("c4_v220_taken", source=source, objective="prefix_lm")

    add_foreign("text")
    theirs = seqio.TaskRegistry.get("c4_v220_taken")
    assert ours() is seqio.TaskRegistry.get("c4_v220_taken") is not theirs
    seqio.TaskRegistry.remove("c4_v220_taken")
    add_foreign("")
    with pytest.raises(DataError, match="already registered with other text"):
        ours()


@requires_shared
@pytest.mark.slow
def test_real_text_with_t5s_vocabulary():
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    books = str(SHARED / "data/text/gutenberg/carroll-*.txt")
    for objective, lengths in (("prefix_lm", (512, 512)), ("span_corruption", (512, 114))):
        from_text_files(NAME, objective=objective, train=books)
        cfg = config(
            task_feature_lengths=dict(zip(("inputs", "targets"), lengths, strict=True)),
            shuffle=False,
        )
        with context.overriding(vocabulary=vocabulary):
            dataset_checks.check_dataset(cfg)
            batch = next(datasets.train_batches(cfg, seed=0))
        assert batch["encoder_input_tokens"].shape == (4, 512)
        assert batch["decoder_target_tokens"].shape == (4, lengths[1])
        if objective == "span_corruption":
            # Documents are joined: at first nothing is padded.
            assert (batch["encoder_input_tokens"] > 0).all()
            assert (batch["decoder_target_tokens"] > 0).all()
            assert (batch["decoder_target_tokens"][:, 0] == 32_099).all()
