"""Raw examples from the original files and from TensorFlow Datasets."""

import json
from typing import Any

import numpy as np
import pytest
import seqio
from etils import epath

from prompt_tuning.data import context
from prompt_tuning.data.benchmarks import local_files
from prompt_tuning.data.benchmarks.local_files import LocalFormat
from prompt_tuning.data.benchmarks.sources import LocalOrTfdsDataSource
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import glue
from tests.data.local_data import prepare_tfds, write_data, write_jsonl
from tests.helpers import SHARED, requires_shared

BOOLQ = LocalFormat("BoolQ", ".jsonl", ("question", "passage"), ("False", "True"))
CB = LocalFormat(
    "CB", ".jsonl", ("premise", "hypothesis"), ("entailment", "contradiction", "neutral")
)
RTE = LocalFormat("RTE", ".jsonl", ("premise", "hypothesis"), ("entailment", "not_entailment"))
MRPC: Any = glue.DATA_SETS["mrpc"].local
SST2 = LocalFormat("SST-2", ".tsv", ("sentence",), ("negative", "positive"))


def read(path, fmt=BOOLQ, split=None):
    return fmt.read([str(path)], split or path.stem)


def test_jsonl_becomes_the_columns_of_tfds(tmp_path):
    rows = [
        # Characters at which str.splitlines would split, a byte order mark's letters, a boolean label.
        {"question": "a\u2028b\x85c", "passage": "Café\ttab", "idx": 7, "label": True},
        {"question": "q", "passage": "p", "idx": 8, "label": False},
        {"question": "q", "passage": "p", "idx": 9},
        {"question": "q", "passage": "p", "label": 1},
    ]
    path = write_jsonl(
        tmp_path / "test.jsonl", [json.dumps(row, ensure_ascii=False) for row in rows] + [""]
    )
    columns = read(path)
    assert columns["question"][0].decode() == "a\u2028b\x85c"
    assert columns["passage"][0].decode() == "Café\ttab"
    np.testing.assert_array_equal(columns["label"], [1, 0, -1, 1])
    np.testing.assert_array_equal(columns["idx"], [7, 8, 9, 3])
    assert columns["label"].dtype == np.int64 and columns["idx"].dtype == np.int32


def test_tsv_keeps_spaces_and_quotes(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_bytes(b'\xef\xbb\xbfsentence\tlabel\r\n"half a quote \t1\r\n a  b \t0\r\n')
    columns = read(path, SST2)
    assert columns["sentence"].tolist() == [b'"half a quote ', b" a  b "]
    np.testing.assert_array_equal(columns["label"], [1, 0])
    test = write_jsonl(tmp_path / "test.tsv", ["index\tsentence", "4\tunlabeled"])
    columns = read(test, SST2)
    assert columns["label"].tolist() == [-1] and columns["idx"].tolist() == [4]


def test_columns_of_other_names_become_those_of_tfds(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    path = write_jsonl(
        tmp_path / "dev.tsv", [header, '1\t7\t8\t"half a quote\tCafé ', "0\t9\t4\ta\tb"]
    )
    columns = read(path, MRPC)
    assert columns.keys() == {"sentence1", "sentence2", "label", "idx"}
    assert [text.decode() for text in columns["sentence1"]] == ['"half a quote', "a"]
    assert [text.decode() for text in columns["sentence2"]] == ["Café ", "b"]
    np.testing.assert_array_equal(columns["label"], [1, 0])
    np.testing.assert_array_equal(columns["idx"], [0, 1])
    test = write_jsonl(tmp_path / "test.tsv", ["index\t#1 String\t#2 String", "3\ta\tb"])
    assert read(test, MRPC)["label"].tolist() == [-1]
    with pytest.raises(DataError, match="'#2 String'"):
        read(write_jsonl(tmp_path / "test.other.tsv", ["Quality\t#1 String", "1\ta"]), MRPC)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "q", "passage": "p"', ["not JSON", "column"]),
        ('{"question": "q", "label": true}', ["'passage'"]),
        ('{"question": "q", "passage": "p", "label": "maybe"}', ["maybe", "'False', 'True'"]),
        ('{"question": "q", "passage": "p", "label": 2}', ["unknown label"]),
        ('{"question": "q", "passage": "p", "label": "²"}', ["unknown label"]),
        ('{"question": "q", "passage": "p", "answer": true}', ["no label", "'label'"]),
        ('{"question": "q", "passage": "p", "label": null}', ["no label", "null"]),
        ('{"question": "q", "passage": "p", "label": -1}', ["no label", "split 'val'"]),
        ('{"question": "q", "passage": "p", "label": true, "idx": "x"}', ["'idx'", "got 'x'"]),
        ('{"question": "q", "passage": "p", "label": true, "idx": 2147483648}', ["2147483647"]),
        ('{"question": "q", "passage": "p", "label": true, "idx": 0}', [".jsonl:1 has the same"]),
    ],
)
def test_a_malformed_jsonl_line_is_named(tmp_path, line, words):
    good = {"question": "q", "passage": "p", "label": True}
    path = write_jsonl(tmp_path / "val.jsonl", [good, "", line, good])
    with pytest.raises(DataError) as error:
        read(path)
    for word in [f"{path}:3", "Fix: ", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("score", ["", "\t6", "\tnan", "\t-0.5"])
def test_a_similarity_that_is_none_is_named(tmp_path, score):
    stsb: Any = glue.DATA_SETS["stsb"].local
    header = "sentence1\tsentence2\tscore" if score else "sentence1\tsentence2"
    path = write_jsonl(tmp_path / "train.tsv", [header, f"a\tb{score}"])
    with pytest.raises(DataError, match=r"train.tsv:2 has (a label that is no number|no label)"):
        read(path, stsb)


def test_a_misspelled_label_column_is_named(tmp_path):
    path = write_jsonl(tmp_path / "train.tsv", ["sentence\tlabl", "a\t1"])
    with pytest.raises(DataError, match="train.tsv:2 has no label"):
        read(path, SST2)
    path = write_jsonl(tmp_path / "train.tsv", ["sentence\tlabel\tlabel", "a\t1\t0"])
    with pytest.raises(DataError, match="train.tsv:1 names a column twice"):
        read(path, SST2)
    test = write_jsonl(tmp_path / "test.tsv", ["index\tsentence", "3\ta", "3\tb"])
    with pytest.raises(DataError, match=r"test.tsv:3 has the 'idx'.*test.tsv:2 has the same"):
        read(test, SST2)


def test_either_name_of_the_validation_file_is_found(tmp_path):
    for name in ("validation", "dev", "val"):
        path = write_jsonl(tmp_path / "RTE" / f"{name}.jsonl", [])
        assert local_files.find_split(str(tmp_path), RTE, "validation") == epath.Path(path)
        if name == "validation":
            path.unlink()
    with pytest.raises(DataError, match=r"RTE/train.jsonl"):
        local_files.find_split(str(tmp_path), RTE, "train")


def source():
    return LocalOrTfdsDataSource(tfds_name="super_glue/rte:1.0.2", local=RTE)


def examples(ds):
    return [{**e, "idx": int(e["idx"]), "label": int(e["label"])} for e in ds.as_numpy_iterator()]


def ids(ds):
    return [int(example["idx"]) for example in ds.as_numpy_iterator()]


def test_local_rows_are_permuted_by_the_seed(tmp_path):
    context.set_context(data_dir=str(write_data(tmp_path)))
    in_order = ids(source().get_dataset("train", shuffle=False))
    assert in_order == list(range(50))
    shuffled = ids(source().get_dataset("train", shuffle=True, seed=1))
    assert shuffled != in_order and sorted(shuffled) == in_order
    assert ids(source().get_dataset("train", shuffle=True, seed=1)) == shuffled
    assert ids(source().get_dataset("train", shuffle=True, seed=2)) != shuffled
    shards = [
        ids(source().get_dataset("train", False, None, seqio.ShardInfo(i, 3))) for i in range(3)
    ]
    assert sorted(sum(shards, [])) == in_order
    assert source().num_input_examples("train") == 50
    assert [p.split("/")[-1] for p in source().list_shards("train")] == ["train.jsonl"]


def test_a_changed_file_is_read_again(tmp_path):
    context.set_context(data_dir=str(write_data(tmp_path, train=3)))
    assert source().num_input_examples("train") == 3
    write_data(tmp_path, train=4)
    assert source().num_input_examples("train") == 4


@pytest.fixture
def tfds_dir(tmp_path):
    """A prepared TensorFlow data set, the same examples as the local files."""
    rows = [
        {"premise": f"a river {i}", "hypothesis": "the mill", "idx": i, "label": i % 2}
        for i in range(50)
    ]
    prepare_tfds(tmp_path / "tfds", "super_glue/rte:1.0.2", {"train": rows, "validation": rows[:5]})
    seqio.set_tfds_data_dir_override(str(tmp_path / "tfds"))
    yield str(tmp_path / "tfds")
    seqio.set_tfds_data_dir_override(None)


def test_tfds_and_the_original_files_hold_the_same(tfds_dir, tmp_path):
    from_tfds = source()
    assert from_tfds.num_input_examples("train") == 50
    assert len(from_tfds.list_shards("train")) == 3
    theirs = from_tfds.get_dataset("train", shuffle=False)
    theirs_in_order = sorted(examples(theirs), key=lambda e: e["idx"])
    once = ids(from_tfds.get_dataset("train", shuffle=True, seed=3))
    assert once == ids(source().get_dataset("train", shuffle=True, seed=3))
    context.set_context(data_dir=str(write_data(tmp_path / "local")))
    ours = source().get_dataset("train", shuffle=False)
    assert ours.element_spec == theirs.element_spec
    assert len(theirs_in_order) == 50
    assert examples(ours) == theirs_in_order


@pytest.mark.parametrize("method", ["get_dataset", "num_input_examples", "list_shards"])
def test_a_failed_download_says_what_to_do(method, monkeypatch):
    def fail(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(seqio.TfdsDataSource, method, fail)
    with pytest.raises(DataError) as error:
        getattr(source(), method)("train")
    for word in ("super_glue/rte:1.0.2", "no route to host", "--tfds_data_dir", "RTE/"):
        assert word in str(error.value)


def test_a_missing_package_keeps_its_own_error(monkeypatch):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'a_package'")

    monkeypatch.setattr(seqio.TfdsDataSource, "get_dataset", fail)
    with pytest.raises(ModuleNotFoundError, match="a_package"):
        source().get_dataset("train")


@requires_shared
@pytest.mark.parametrize(
    ("fmt", "folder", "split", "counts"),
    [
        (BOOLQ, "superglue", "validation", [1237, 2033]),
        (CB, "superglue", "train", [115, 119, 16]),
        (RTE, "superglue", "train", [1249, 1241]),
        (SST2, "glue", "validation", [428, 444]),
    ],
)
def test_the_real_files_have_the_published_label_counts(fmt, folder, split, counts):
    assert SHARED is not None
    path = local_files.find_split(str(SHARED / "data" / folder), fmt, split)
    columns = fmt.read([str(path)], split)
    np.testing.assert_array_equal(np.bincount(columns["label"]), counts)
    np.testing.assert_array_equal(columns["idx"], np.arange(sum(counts)))


@requires_shared
def test_a_split_that_is_not_there_is_named():
    assert SHARED is not None
    with pytest.raises(DataError, match=r"(?s)'train' of BoolQ is empty.*BoolQ/train\.jsonl"):
        local_files.find_split(str(SHARED / "data" / "superglue"), BOOLQ, "train")
