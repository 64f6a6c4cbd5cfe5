"""Every registered task: its name, its text, its ids, its metrics, and what happens where the name is taken."""

import dataclasses
import functools
import importlib
import json
from typing import Any

import numpy as np
import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import context, datasets, registry, verbalizers
from prompt_tuning.data.datasets import DatasetConfig
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import glue, super_glue, verbalizer_pairs
from tests.data.local_data import write_data
from tests.helpers import GOLDEN, SHARED, requires_shared

# File of reference examples -> (number of examples, versions whose text it is).
REFERENCE = {"boolq": 4, "cb": 4, "rte": 4, "glue_sst2": 3}
FORMS = ("t5", "taskless")


def reference(name):
    lines = (GOLDEN / "tasks" / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    examples = [json.loads(line) for line in lines if line]
    assert len(examples) == REFERENCE[name]
    return examples


def columns(raw) -> Any:
    """One raw example as columns of TensorFlow Datasets' types."""
    types = {"label": np.int64, "idx": np.int32}
    return {k: np.array([v], types[k]) if k in types else [v] for k, v in raw.items()}


@pytest.fixture(autouse=True)
def clean_context():
    yield
    context.set_context()


def test_the_names_are_the_ones_users_type():
    names = set(seqio.TaskRegistry.names())
    bases = [f"super_glue_{n}_v102" for n in ("boolq", "cb", "rte")]
    bases += [f"glue_sst2_{v}" for v in ("v002", "v200")]
    expected = {f"{f}{b}{s}" for f in ("", "taskless_") for b in bases for s in ("", "_examples")}
    expected |= {f"sst2_{p}{s}" for p in verbalizer_pairs.PAIRS for s in ("", "_with_phrase")}
    assert len(expected) == 26
    assert expected <= names
    assert "sst2_verbalizer_pairs" in seqio.MixtureRegistry.names()
    assert len(super_glue.DATA_SETS) == 3 and len(glue.DATA_SETS) == 1


@pytest.mark.parametrize("module", ["glue", "super_glue"])
def test_the_authors_module_names_load_our_tasks(module):
    importlib.import_module(f"prompt_tuning.data.{module}")
    cfg = DatasetConfig("glue_sst2_v002", {}, "train", 1, module=f"prompt_tuning.data.{module}")
    assert datasets.get_task(cfg).name == "glue_sst2_v002"


@pytest.mark.parametrize("name", REFERENCE)
def test_text_equals_the_reference(name):
    compared = 0
    for example in reference(name):
        for form in FORMS:
            for suffix in ("", "_examples"):
                task = seqio.TaskRegistry.get(example["task_names"][form] + suffix)
                text = registry.texts(task, columns(example["raw"]))
                assert text == [(example[form]["inputs"], example[form]["targets"])]
                compared += 1
    assert compared == 4 * REFERENCE[name]


@requires_shared
@pytest.mark.parametrize("name", REFERENCE)
def test_ids_and_values_equal_the_reference(name):
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    context.set_context(vocabulary=vocabulary)
    compared = 0
    for example in reference(name):
        for form in FORMS:
            task = seqio.TaskRegistry.get(example["task_names"][form])
            ds = tf.data.Dataset.from_tensor_slices(columns(example["raw"]))
            ds = task.preprocess_postcache(task.preprocess_precache(ds), sequence_length=None)
            result = next(ds.as_numpy_iterator())
            for feature in ("inputs", "targets"):
                assert result[feature].tolist() == example["tokens"][form][feature]
            assert result["idx"] == example["raw"]["idx"]
            value = task.postprocess_fn(
                vocabulary.decode(result["targets"].tolist()), example=result, is_target=True
            )
            assert value == example["postprocessed_target"][form]
            compared += 1
    assert compared == 2 * REFERENCE[name]


@pytest.mark.parametrize(
    ("pair", "words", "phrase"),
    [
        ("great_terrible", ["terrible", "great"], "answer great or terrible:"),
        ("yes_no", ["no", "yes"], "answer yes or no:"),
        ("up_down", ["down", "up"], "answer up or down:"),
    ],
)
def test_a_phrase_names_the_pair(pair, words, phrase):
    for label, word in enumerate(words):
        raw = columns({"sentence": "a  film ", "label": label, "idx": 0})
        with_phrase = seqio.TaskRegistry.get(f"sst2_{pair}_with_phrase")
        assert registry.texts(with_phrase, raw) == [(f"{phrase} a  film ", word)]
        plain = seqio.TaskRegistry.get(f"sst2_{pair}")
        assert registry.texts(plain, raw) == [("sentence: a  film ", word)]
        assert plain.postprocess_fn(word) == label
    assert verbalizers.get_verbalizers(f"sst2_{pair}") == tuple(words)


@requires_shared
def test_each_pair_is_two_single_pieces():
    """One piece and EOS each, so that no pair is easier to spell than another."""
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    words = [word for pair in verbalizer_pairs.PAIRS.values() for word in pair]
    assert len(words) == 6
    assert {word: len(vocabulary.encode(word)) for word in words} == dict.fromkeys(words, 1)


@pytest.fixture
def someone_elses_task():
    """Registers a task as another package would, with the given preprocessing, and removes it."""
    added = []

    def add(name, preprocess):
        template = seqio.TaskRegistry.get("super_glue_rte_v102")
        task = template.replace(name=name, preprocessors=[preprocess, *template.preprocessors[1:]])
        seqio.TaskRegistry.add_provider(name, task)
        added.append(name)
        return task

    yield add
    for name in added:
        seqio.TaskRegistry.remove(name)


def test_a_taken_name_is_kept_if_the_text_is_the_same(someone_elses_task):
    data = next(d for d in super_glue.DATA_SETS if d.name == "rte")

    def as_t5_writes_it(ds, prefix):
        return ds.map(
            lambda e: {
                "inputs": tf.strings.join(
                    [prefix, "hypothesis:", e["hypothesis"], "premise:", e["premise"]], " "
                ),
                "targets": tf.gather(tf.constant([*data.verbalizers, "<unk>"]), e["label"] % 3),
                "idx": e["idx"],
            }
        )

    name = "super_glue_rte_copy_v102"
    theirs = someone_elses_task(name, functools.partial(as_t5_writes_it, prefix="rte"))
    super_glue.register_forms(data, name, tfds_name="super_glue/rte:1.0.2")
    assert seqio.TaskRegistry.get(name) is theirs
    for other in (f"{name}_examples", f"taskless_{name}", f"taskless_{name}_examples"):
        seqio.TaskRegistry.remove(other)

    other_name = "super_glue_rte_other_v102"
    someone_elses_task(other_name, functools.partial(as_t5_writes_it, prefix="nli"))
    with pytest.raises(DataError) as error:
        super_glue.register_forms(data, other_name, tfds_name="super_glue/rte:1.0.2")
    for word in (other_name, "nli hypothesis:", "rte hypothesis:"):
        assert word in str(error.value)


def test_registering_twice_changes_nothing():
    before = {name: seqio.TaskRegistry.get(name) for name in seqio.TaskRegistry.names()}
    importlib.reload(verbalizer_pairs)
    importlib.reload(super_glue)
    after = {name: seqio.TaskRegistry.get(name) for name in seqio.TaskRegistry.names()}
    assert before == after and len(before) >= 26
    with pytest.raises(DataError, match="other tasks"):
        registry.register_mixture("sst2_verbalizer_pairs", ["sst2_yes_no"])


@pytest.mark.parametrize(
    ("task_name", "metric_names"),
    [
        ("taskless_super_glue_cb_v102", {"mean_3class_f1", "accuracy"}),
        (
            "taskless_super_glue_cb_v102_examples",
            {"mean_3class_f1", "accuracy", "cb samples", "cb negative samples"},
        ),
        ("taskless_glue_sst2_v200_examples", {"accuracy", "sst2 samples", "sst2 negative samples"}),
    ],
)
def test_seqios_evaluator_runs_the_task(task_name, metric_names, tmp_path, tiny_vocabulary):
    vocabulary = seqio.SentencePieceVocabulary(str(tiny_vocabulary))
    context.set_context(vocabulary=vocabulary, data_dir=str(write_data(tmp_path / "data")))
    evaluator = seqio.Evaluator(
        task_name,
        seqio.EncDecFeatureConverter(pack=False),
        sequence_length={"inputs": 32, "targets": 16},
        logger_cls=[seqio.TensorBoardLogger, seqio.JSONLogger],
        log_dir=str(tmp_path / "log"),
        async_compute_metrics=False,
    )

    def predict(dataset, model_feature_shapes=None):
        """The right answers, but the first."""
        del model_feature_shapes
        examples = dataset.as_numpy_iterator()
        answers = [(int(i), e["decoder_target_tokens"].tolist()) for i, e in examples]
        return [(i, tokens if i else [1] + [0] * 15) for i, tokens in answers]

    future, _ = evaluator.evaluate(compute_metrics=True, step=3, predict_fn=predict)
    result = future.result()[task_name]
    assert result.keys() == metric_names
    assert result["accuracy"] == 80.0
    lines = (tmp_path / "log" / f"{task_name}-metrics.jsonl").read_text().splitlines()
    written = json.loads(lines[0])
    assert written["step"] == 3 and written.keys() == metric_names | {"step"}
    if task_name.endswith("_examples"):
        negative = next(name for name in metric_names if "negative" in name)
        assert written[negative].count("example: ") == 1
    predictions = (tmp_path / "log" / f"{task_name}-000003.jsonl").read_text().splitlines()
    assert len(predictions) == 5
    assert list((tmp_path / "log" / task_name).glob("events.*"))


def test_the_table_is_all_that_a_new_task_needs():
    fields = {field.name for field in dataclasses.fields(super_glue.DATA_SETS[0])}
    assert fields == {"name", "local", "verbalizers", "metric_fns"}
