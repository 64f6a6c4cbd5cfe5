"""What a run says of its examples before it starts: cut, unknown, alike, without an answer."""

import dataclasses

import pytest
import seqio

from prompt_tuning.data import dataset_checks, inference_examples
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.own import file_tasks
from prompt_tuning.data.own.file_tasks import from_files
from prompt_tuning.data.registry import register_mixture
from prompt_tuning.errors import DataError
from tests.data.local_data import write_jsonl

NAME = "tallies_test"
CFG = DatasetConfig(NAME, {"inputs": 16, "targets": 8}, "train", 4)
LONG = "a quiet and moving picture of life by the sea"
# Characters that the tiny vocabulary does not have.
UNKNOWN = ("語", "言語")


@pytest.fixture(autouse=True)
def clean_registry(vocabulary):
    yield
    for name in list(seqio.TaskRegistry.names()):
        if isinstance(seqio.TaskRegistry.get(name).source, file_tasks.RecordFilesDataSource):
            seqio.TaskRegistry.remove(name)
    for name in [name for name in seqio.MixtureRegistry.names() if name.startswith(NAME)]:
        seqio.MixtureRegistry.remove(name)


def register(tmp_path, pairs, split="train", name=NAME, **settings):
    rows = [{"q": q, "a": a} for q, a in pairs]
    path = str(write_jsonl(tmp_path / f"{name}_{split}.jsonl", rows))
    from_files(name, **{"inputs": "{q}", "targets": "{a}", split: path, **settings})


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([("river", "yes"), ("mill", "no")], []),
        ([("river", LONG), ("mill", "no")], ["1 of 2 targets of train of 'tallies_test' are cut"]),
        ([(LONG, "yes"), ("b", "no"), ("c", "no")], ["1 of 3 inputs of train", "cut at 16 tokens"]),
        ([(UNKNOWN[0], "yes"), ("mill", "no")], ["1 of 2 inputs", "vocabulary lacks"]),
    ],
)
def test_what_may_be_meant_is_said_with_its_share(tmp_path, pairs, found):
    register(tmp_path, pairs)
    warnings = dataset_checks.check_dataset(CFG)
    assert len(warnings) == bool(found), warnings
    assert all(words in warnings[0] for words in found)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (
            [(q, "yes") for q in UNKNOWN],
            ["inputs", "in this vocabulary", "2 of 2 hold tokens that the", "language"],
        ),
        (
            [(LONG + " a", "yes"), (LONG + " the", "no")],
            ["cut at 16", "TASK_FEATURE_LENGTHS['inputs']"],
        ),
        (
            [("river", LONG + " a"), ("mill", LONG + " the")],
            ["targets", "TASK_FEATURE_LENGTHS['targets']"],
        ),
    ],
)
def test_texts_that_the_model_cannot_tell_apart_are_refused(tmp_path, pairs, words):
    register(tmp_path, pairs)
    with pytest.raises(DataError, match="are all the same") as error:
        dataset_checks.check_dataset(CFG)
    for word in ["Fix: ", *words]:
        assert word in str(error.value)
    # The fix mends it.
    if "TASK_FEATURE_LENGTHS" in words[-1]:
        longer = {"inputs": 64, "targets": 64}
        assert not dataset_checks.check_dataset(
            dataclasses.replace(CFG, task_feature_lengths=longer)
        )


def test_withheld_answers_are_for_predictions_alone(tmp_path):
    register(tmp_path, [("river", None), ("mill", None)], "test")
    cfg = dataclasses.replace(CFG, split="test")
    assert not dataset_checks.check_dataset(cfg, needs_targets=False)
    with pytest.raises(DataError, match="targets of test of .* are withheld.*infer"):
        dataset_checks.check_dataset(cfg)
    register(tmp_path, [("river", None), ("mill", "yes")], "test")
    assert "1 of 2 targets" in dataset_checks.check_dataset(cfg)[0]


@pytest.mark.parametrize(("word", "fix"), [("bad ", "write 'bad'"), ("b語d", "another word")])
def test_a_label_that_the_vocabulary_writes_otherwise_is_refused(tmp_path, word, fix):
    register(tmp_path, [("river", 0), ("mill", 1)], label_map={0: word, 1: "good"})
    with pytest.raises(DataError, match=f"vocabulary writes the label '{word}'.*Fix: .*{fix}"):
        dataset_checks.check_dataset(CFG)


def test_rates_that_mix_nothing_are_refused(tmp_path):
    names = [f"{NAME}_{letter}" for letter in "ab"]
    for name in names:
        register(tmp_path, [("river", "yes"), ("mill", "no")], name=name)
    for rates in ((0.0, 0.0), (1.0, -1.0), (float("nan"), 1.0), ()):
        with pytest.raises(DataError, match="mix nothing.*Fix: "):
            register_mixture(f"{NAME}_mix", dict(zip(names, rates, strict=False)))
    register_mixture(f"{NAME}_mix", {names[0]: 1.0, names[1]: 0.0})
    cfg = dataclasses.replace(CFG, mixture_or_task_name=f"{NAME}_mix")
    assert not dataset_checks.check_dataset(cfg, trains=True)
    # One that SeqIO registered is checked where it is trained on, and may be evaluated.
    seqio.MixtureRegistry.add(f"{NAME}_zero", [(name, 0.0) for name in names])
    cfg = dataclasses.replace(CFG, mixture_or_task_name=f"{NAME}_zero")
    assert not dataset_checks.check_dataset(cfg)
    with pytest.raises(DataError, match=f"{NAME}_zero.*mix nothing"):
        dataset_checks.check_dataset(cfg, trains=True)


def test_a_file_of_inputs_is_looked_at_alike(tmp_path, vocabulary, caplog):
    def read(rows, **options):
        path = str(write_jsonl(tmp_path / "a.jsonl", rows))
        how = {"input_vocabulary": vocabulary, "output_vocabulary": vocabulary}
        return list(
            inference_examples.from_file(path, lengths=CFG.task_feature_lengths, **how, **options)
        )

    assert len(read([{"inputs": LONG}, {"inputs": "mill"}])) == 2
    assert "1 of 2 inputs of" in caplog.text and "cut at 16 tokens" in caplog.text
    with pytest.raises(DataError, match="are all the same"):
        read([{"inputs": text} for text in UNKNOWN])
    rows = [{"inputs": "mill", "targets": LONG + end} for end in (" a", " the")]
    assert len(read(rows)) == 2
    with pytest.raises(DataError, match="targets of .* are all the same"):
        read(rows, needs_targets=True)
