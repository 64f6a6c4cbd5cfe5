"""The published data sets through our tasks: how many examples there are, and what the commonest class scores."""

import collections
import functools
import json

import numpy as np
import pytest
import seqio
from tensorflow_datasets.text import super_glue as tfds_super_glue

from prompt_tuning.data import context, metrics
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.tasks import glue, question_answering, super_glue  # noqa: F401
from tests.helpers import SHARED, requires_shared

pytestmark = requires_shared

# (task, split) -> examples. Train counts of BoolQ and ReCoRD cannot be had; see `superglue_fewglue` for ReCoRD.
COUNTS = {
    ("super_glue_boolq_v102", "validation"): 3270,
    ("super_glue_cb_v102", "train"): 250,
    ("super_glue_cb_v102", "validation"): 56,
    ("super_glue_copa_v102", "train"): 400,
    ("super_glue_copa_v102", "validation"): 100,
    ("super_glue_multirc_v102", "train"): 27243,
    ("super_glue_multirc_v102", "validation"): 4848,
    ("super_glue_rte_v102", "train"): 2490,
    ("super_glue_rte_v102", "validation"): 277,
    ("super_glue_wic_v102", "train"): 5428,
    ("super_glue_wic_v102", "validation"): 638,
    ("super_glue_wsc_v102_simple_train", "train"): 259,
    ("super_glue_wsc_v102_simple_eval", "validation"): 104,
    ("super_glue_axb_v102", "test"): 1104,
    ("super_glue_axg_v102", "test"): 356,
}
# Task -> (commonest class, its share of the dev set in percent), Lester et al. 2021, tables 8 to 16.
MAJORITIES = {
    "super_glue_boolq_v102": (1, 62.2),
    "super_glue_cb_v102": (1, 50.0),
    "super_glue_copa_v102": (0, 55.0),
    "super_glue_multirc_v102": (0, 57.2),
    "super_glue_rte_v102": (0, 52.7),
    "super_glue_wic_v102": (0, 50.0),
    "super_glue_wsc_v102_simple_eval": (0, 63.5),
}


@pytest.fixture(autouse=True)
def superglue():
    context.set_context(data_dir=str(SHARED and SHARED / "data" / "superglue"))


@functools.cache
def text_examples(name, split):
    """The examples of a task before any vocabulary is involved."""
    task = seqio.TaskRegistry.get(name)
    ds = task.preprocessors[0](task.source.get_dataset(split, shuffle=False))
    return list(ds.as_numpy_iterator())


LARGE = ("super_glue_multirc_v102", "train")


@pytest.mark.parametrize(
    ("name", "split"),
    [pytest.param(*row, marks=pytest.mark.slow if row == LARGE else ()) for row in COUNTS],
)
def test_there_are_as_many_examples_as_published(name, split):
    examples = text_examples(name, split)
    assert len(examples) == COUNTS[name, split]
    assert all(example["inputs"] and example["targets"] for example in examples)


@pytest.mark.parametrize("name", MAJORITIES)
def test_guessing_the_commonest_class_scores_what_the_paper_says(name):
    task = seqio.TaskRegistry.get(name)
    values = [
        task.postprocess_fn(example["targets"].decode(), example=example, is_target=True)
        for example in text_examples(name, "validation")
    ]
    classes = [value["value"] if isinstance(value, dict) else value for value in values]
    commonest, share = MAJORITIES[name]
    assert collections.Counter(classes).most_common(1)[0][1] == classes.count(commonest)
    score = metrics.accuracy(classes, [commonest] * len(classes))["accuracy"]
    assert round(score, 1) == share


def test_the_right_answers_score_100():
    tasks = [n for n, _ in COUNTS if seqio.TaskRegistry.get(n).metric_fns]
    for name in dict.fromkeys(tasks):
        task = seqio.TaskRegistry.get(name)
        examples = text_examples(name, "validation")
        targets, predictions = [], []
        for example in examples:
            text = example["targets"].decode()
            example = {**example, "targets_pretokenized": example["targets"]}
            targets.append(task.postprocess_fn(text, example=example, is_target=True))
            predictions.append(task.postprocess_fn(text, example=example))
        results = {}
        for metric_fn in task.metric_fns:
            results |= metric_fn(targets, predictions)
        if "wsc" in name:
            # The candidate is named always, which is right where it is what the pronoun refers to.
            assert results == {"accuracy": pytest.approx(100 * 38 / 104)}
        else:
            assert set(results.values()) == {100.0}, name
    assert len(dict.fromkeys(tasks)) == 7


def test_record_is_expanded_to_its_answers():
    assert SHARED is not None
    context.set_context(data_dir=str(SHARED / "data" / "superglue_fewglue"))
    source = seqio.TaskRegistry.get("taskless_super_glue_record_v102").source
    raw = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())
    examples = text_examples("taskless_super_glue_record_v102", "train")
    assert len(raw) == 32 and len(examples) == sum(len(row["answers"]) for row in raw) == 44
    answers = {row["idx"]["query"]: row["answers"].tolist() for row in raw}
    assert all(e["targets"] in answers[e["idx/query"]] for e in examples)
    assert all(entity in row["passage"] for row in raw for entity in row["entities"])


def test_winograd_spans_are_mended_as_in_tfds():
    """Against the function by which TensorFlow Datasets makes `wsc.fixed`."""
    assert SHARED is not None
    compared = 0
    for role, split, file in (("train", "train", "train"), ("eval", "validation", "val")):
        task = seqio.TaskRegistry.get(f"super_glue_wsc_v102_simple_{role}")
        ours = list(task.source.get_dataset(split, shuffle=False).as_numpy_iterator())
        path = SHARED / "data" / "superglue" / "WSC" / f"{file}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for mine, row in zip(ours, rows, strict=True):
            theirs = tfds_super_glue._fix_wst({"text": row["text"], **row["target"]})
            for name in ("text", "span1_text", "span2_text"):
                assert mine[name].decode() == theirs[name]
            assert mine["span1_index"] == theirs["span1_index"]
            assert mine["span2_index"] == theirs["span2_index"]
            compared += 1
    assert compared == 554 + 104


def test_other_original_files_are_read():
    assert SHARED is not None
    data = SHARED / "data"
    squad = question_answering.SQUAD.local.read(
        [f"{data}/squad/squad_v1.1_resplit_dev20articles.json"], "validation"
    )
    assert len(squad["id"]) == 4639 and sum(map(len, squad["answers"]["text"])) == 6053
    news = question_answering.MRQA_SETS["drop"].local.read(
        [f"{data}/mrqa/NewsQA_sample.jsonl"], "validation"
    )
    assert len(news["qid"]) == 17 and all(len(answers) for answers in news["answers"])
    qqp = glue.DATA_SETS["qqp"].local
    for file, counts in (("train", [6, 3]), ("dev", [5, 4])):
        labels = qqp.read([f"{data}/glue/QQP_tiny/{file}.tsv"], file)["label"]
        np.testing.assert_array_equal(np.bincount(labels), counts)
    assert set(qqp.read([f"{data}/glue/QQP_tiny/test.tsv"], "test")["label"]) == {-1}


def test_no_label_is_cut_off_at_the_usual_length():
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    words = {
        word
        for d in (*super_glue.DATA_SETS.values(), *glue.DATA_SETS.values())
        for word in d.verbalizers
    }
    assert len(words) == 16
    assert max(len(vocabulary.encode(word)) + 1 for word in words) <= 8
