"""Tasks from a user's files: settings, text, labels, order, and errors before anything is compiled."""

import gzip
import json

import numpy as np
import pytest
import seqio

from prompt_tuning.data import dataset_checks, verbalizers
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.own import file_tasks
from prompt_tuning.data.own.file_tasks import from_files
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.tasks import super_glue as super_glue
from tests.data.local_data import write_jsonl

NAME = "file_tasks_test"
LENGTHS = {"inputs": 24, "targets": 8}
ROWS = [{"q": f"is it {i} ?", "p": "a\tb 🙂", "label": i % 3 == 0} for i in range(20)]
SETTINGS = {
    "inputs": "{{q}}: {q} p: {p}",
    "targets": "{label}",
    "label_map": {False: "no", True: "yes"},
}


@pytest.fixture(autouse=True)
def clean_registry(vocabulary):
    yield
    for name in list(seqio.TaskRegistry.names()):
        if isinstance(seqio.TaskRegistry.get(name).source, file_tasks.RecordFilesDataSource):
            seqio.TaskRegistry.remove(name)


def register(tmp_path, rows=ROWS, **settings):
    files = {"train": str(write_jsonl(tmp_path / "train.jsonl", rows))}
    return seqio.TaskRegistry.get(from_files(NAME, **{**SETTINGS, **files, **settings}))


def examples(task, split="train"):
    return list(task.get_dataset(None, split=split, shuffle=False).as_numpy_iterator())


def texts(task, split="train"):
    return [
        (e["inputs_pretokenized"].decode(), e["targets_pretokenized"].decode())
        for e in examples(task, split)
    ]


def test_templates_and_labels_make_the_text(tmp_path):
    task = register(tmp_path)
    found = texts(task)
    assert len(found) == len(ROWS)
    assert found[:2] == [("{q}: is it 0 ? p: a\tb 🙂", "yes"), ("{q}: is it 1 ? p: a\tb 🙂", "no")]
    assert [task.postprocess_fn(text) for text in ("no", "yes", "maybe")] == [0, 1, -1]
    first = examples(task)[0]
    assert first["inputs"].dtype == np.int32 and first["inputs"][-1] == first["targets"][-1] == 1


@pytest.mark.parametrize(
    ("suffix", "lines"),
    [("tsv", ["q\tp\tlabel", "one\ttwo\tTrue"]), ("csv", ["q,p,label", '"one",two,True'])],
)
def test_tables_give_the_same_text_as_jsonl(tmp_path, suffix, lines):
    path = write_jsonl(tmp_path / f"train.{suffix}", lines)
    assert texts(register(tmp_path, train=[str(path)])) == [("{q}: one p: two", "yes")]


def test_free_text_targets_are_compared_as_text(tmp_path):
    rows = [{"q": "a", "p": "b", "answer": "c d"}]
    task = register(
        tmp_path, rows, targets="the {answer}", label_map=None, metrics=["accuracy", "squad"]
    )
    assert texts(task) == [("{q}: a p: b", "the c d")]
    assert task.postprocess_fn("x", is_target=True) == "x"
    values = {}
    for metric in task.metric_fns:
        values |= metric(["x", "The y"], ["x", "y."])
    assert values == {"accuracy": 50.0, "em": 100.0, "f1": 100.0}


def test_the_test_split_may_withhold_its_labels(tmp_path):
    rows = [{"q": "a", "p": "b"}, {"q": "c", "p": "d", "label": None}, ROWS[0]]
    task = register(tmp_path, test=str(write_jsonl(tmp_path / "test.jsonl", rows)))
    assert [target for _, target in texts(task, "test")] == ["<unk>", "<unk>", "yes"]
    assert set(task.splits) == {"train", "test"}


@pytest.mark.parametrize("mark", [None, "", -1, "-1"])
def test_a_withheld_label_is_taken_as_one_in_the_test_split_alone(tmp_path, mark):
    row = {"q": "a", "p": "b", "label": mark}
    test = str(write_jsonl(tmp_path / "test.jsonl", [row, ROWS[0]]))
    task = register(tmp_path, test=test)
    assert [target for _, target in texts(task, "test")] == ["<unk>", "yes"]
    with pytest.raises(DataError, match="only `test` may hold withheld labels"):
        examples(register(tmp_path, [row]))
    # Where the label map knows the value, it is a label.
    known = {mark: "odd", True: "yes"} if mark is not None else {"": "odd", True: "yes"}
    rows = [{**row, "label": mark if mark is not None else ""}]
    task = register(tmp_path, label_map=known, test=str(write_jsonl(tmp_path / "t.jsonl", rows)))
    assert texts(task, "test")[0][1] == "odd"


def test_an_empty_answer_is_withheld_where_all_are(tmp_path):
    rows = [{"q": "a", "p": "b", "answer": ""}, {"q": "c", "p": "d", "answer": "e"}]
    free = {"targets": "{answer}", "label_map": None}
    for number, wanted in ((2, ["", "e"]), (1, ["<unk>"])):
        test = str(write_jsonl(tmp_path / f"{number}.jsonl", rows[:number]))
        task = register(tmp_path, [{**rows[1]}], test=test, **free)
        assert [target for _, target in texts(task, "test")] == wanted


def test_files_may_be_compressed_and_hold_an_array(tmp_path):
    path = tmp_path / "train.JSON.gz"
    path.write_bytes(gzip.compress(json.dumps(ROWS[:2]).encode()))
    assert len(texts(register(tmp_path, train=str(path)))) == 2


def test_sharded_files_hold_every_record_once(tmp_path):
    paths = [write_jsonl(tmp_path / f"{n}.jsonl", ROWS[n::2]) for n in range(2)]
    source = register(tmp_path, train=[str(path) for path in paths]).source
    shards = [source.get_dataset("train", False, None, seqio.ShardInfo(i, 3)) for i in range(3)]
    found = sorted(e["q"].decode() for ds in shards for e in ds.as_numpy_iterator())
    assert found == sorted(row["q"] for row in ROWS)
    assert source.num_input_examples("train") == 20
    shuffled = [source.get_dataset("train", True, seed) for seed in (1, 1, 2)]
    first, again, other = ([e["q"] for e in ds.as_numpy_iterator()] for ds in shuffled)
    assert first == again != other
    assert [path.split("/")[-1] for path in source.list_shards("train")] == ["0.jsonl", "1.jsonl"]


def test_ids_are_unique_over_the_files_of_a_split(tmp_path):
    row = {"q": "a", "p": "b", "label": True}
    paths = [str(write_jsonl(tmp_path / f"{n}.jsonl", [{**row, "idx": 3}])) for n in "ab"]
    with pytest.raises(DataError, match=r"b.jsonl:1 has the 'idx'.*a.jsonl:1"):
        examples(register(tmp_path, train=paths))
    # What is no number and no text is no id.
    rows = [{**row, "idx": idx} for idx in ({"passage": 0}, {"passage": 0}, True, 1)]
    assert len(examples(register(tmp_path, rows))) == 4


def test_a_field_may_have_any_name(tmp_path):
    rows = [{"q": "a", "p/1": "b", "label": True}]
    assert texts(register(tmp_path, rows, inputs="{q} {p/1}")) == [("a b", "yes")]


def test_a_changed_file_is_read_again_and_a_name_may_be_reused(tmp_path):
    assert len(texts(register(tmp_path))) == 20
    write_jsonl(tmp_path / "train.jsonl", ROWS[:3])
    assert len(texts(seqio.TaskRegistry.get(NAME))) == 3
    assert texts(register(tmp_path, inputs="{q}"))[0][0] == "is it 0 ?"


def test_labels_can_be_ranked_where_there_is_more_than_training_data(tmp_path):
    ranked = f"{NAME}_rank"
    register(tmp_path)
    assert ranked not in seqio.TaskRegistry.names()
    validation = str(write_jsonl(tmp_path / "val.jsonl", ROWS[:2]))
    register(
        tmp_path, validation=validation, metrics=["accuracy", "f1", lambda targets, scores: {}]
    )
    task = seqio.TaskRegistry.get(ranked)
    assert set(task.splits) == {"validation"} and not task.supports_caching
    assert verbalizers.get_verbalizers(ranked) == ("no", "yes")
    found = [text for _, text in texts(task, "validation")]
    assert found == ["no", "yes"] * 2
    # The right labels are "yes" and "no"; the first is found likelier for both.
    rows = [
        task.postprocess_fn("", example=e, is_target=True) for e in examples(task, "validation")
    ]
    assert rows == [(0, 0, 1), (0, 1, 1), (1, 0, 0), (1, 1, 0)]
    assert len(task.score_metric_fns) == 2 and not task.predict_metric_fns
    values = {}
    for metric in task.score_metric_fns:
        values |= metric(rows, [-1.0, -2.0, -1.0, -2.0])
    assert values == {"accuracy": 50.0, "f1": 0.0}
    # Registered anew with free text, the name has no ranked form any more.
    register(tmp_path, targets="{q}", label_map=None, validation=validation)
    assert ranked not in seqio.TaskRegistry.names()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"q": "a", "label": True}, ["no field 'p'", "q, label"]),
        ({"q": "a", "pp": "b", "label": True}, ["no field 'p'", "Closest matches: pp"]),
        ({"q": 5, "p": "b", "label": True}, ["'q' that is not text", "got 5"]),
        ({"q": "a", "p": "b", "label": "maybe"}, ["outside the label_map", "'False', 'True'"]),
        ({"q": "a", "p": "b", "label": 1.0}, ["outside the label_map"]),
        ({"q": "a", "p": "b"}, ["no field 'label'"]),
    ],
)
def test_check_dataset_names_the_line(tmp_path, row, words):
    register(tmp_path, [ROWS[0], row, ROWS[1]])
    with pytest.raises(DataError) as error:
        dataset_checks.check_dataset(DatasetConfig(NAME, LENGTHS, "train", 4))
    for word in [f"{tmp_path}/train.jsonl:2 ", "Fix: ", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": "no field"}, ["inputs names no field"]),
        ({"inputs": "{"}, ["inputs cannot be read"]),
        ({"inputs": "{q:>5}"}, ["a field is a name"]),
        ({"targets": None}, ["targets is not a template"]),
        ({"targets": "it is {label}"}, ["more than the label's field"]),
        ({"inputs": "{has_target}"}, ["name that is taken"]),
        ({"label_map": {0: "no"}}, ["fewer than two"]),
        ({"label_map": {0: "no", "0": "yes"}}, ["label twice"]),
        ({"label_map": ["no", "yes"]}, ["label_map is wrong"]),
        ({"metrics": ["acuracy"]}, ["Unknown metric", "Closest matches: accuracy"]),
        ({"metrics": ["f1"], "label_map": {1: "a", 2: "b", 3: "c"}}, ["two classes"]),
        ({"metrics": ["mean_multiclass_f1"], "label_map": None}, ["no label map"]),
        ({"metrics": "squad"}, ["compares text"]),
        ({"train": "train.txt"}, ["known form", ".jsonl, .tsv, .csv"]),
        ({"train": None}, ["no files"]),
    ],
)
def test_a_wrong_setting_is_refused_before_any_file_is_read(settings, words):
    with pytest.raises(ConfigError) as error:
        from_files(NAME, **{"train": "/nowhere/train.jsonl", **SETTINGS, **settings})
    for word in ["Fix: ", *words]:
        assert word in str(error.value)


def test_a_name_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="letters, digits"):
        from_files("my task", train="a.jsonl", **SETTINGS)
    with pytest.raises(ConfigError, match="another module"):
        from_files("super_glue_rte_v102", train="a.jsonl", **SETTINGS)
    with pytest.raises(ConfigError, match="A mixture of another module"):
        from_files("super_glue_wsc_and_dev_v102_simple", train="a.jsonl", **SETTINGS)


def test_without_a_label_map_the_labels_of_before_are_gone():
    from_files(NAME, train="a.jsonl", **SETTINGS)
    assert verbalizers.get_verbalizers(NAME)
    from_files(NAME, train="a.jsonl", **{**SETTINGS, "label_map": None})
    assert verbalizers.get_verbalizers(NAME) is None


def test_metrics_by_name_and_of_ones_own(tmp_path):
    def mine(targets, predictions):
        return {"mine": len(targets) + len(predictions)}

    names = ["accuracy", "f1", "matthews_corrcoef", "mean_multiclass_f1", mine]
    values = {}
    for metric in register(tmp_path, metrics=names).metric_fns:
        values |= metric([0, 1], [0, 1])
    assert json.loads(json.dumps(values)) == {
        "accuracy": 100.0,
        "f1": 100.0,
        "matthews_corrcoef": 100.0,
        "mean_2class_f1": 100.0,
        "mine": 4,
    }
