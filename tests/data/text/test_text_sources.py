"""Documents as datasets: order, shards, errors on the way, and the three places where C4 can be."""

import gzip
import json

import pytest
import seqio

from prompt_tuning.data import context
from prompt_tuning.data.pipelines import readable_errors
from prompt_tuning.data.text import text_sources
from prompt_tuning.data.text.text_sources import C4DataSource, TextFilesDataSource
from prompt_tuning.errors import DataError
from tests.data.local_data import prepare_tfds


@pytest.fixture
def source(tmp_path):
    """Nine files of two documents each."""
    for i in range(9):
        (tmp_path / f"part-{i:02}.txt").write_text(f"{i} a\n{i} b\n")
    return TextFilesDataSource({"train": [str(tmp_path / "part-*.txt")]})


def texts(ds):
    return [example["text"].decode() for example in ds.as_numpy_iterator()]


def test_files_are_permuted_by_the_seed(source):
    in_order = texts(source.get_dataset("train", shuffle=False))
    assert in_order[:4] == ["0 a", "0 b", "1 a", "1 b"] and len(in_order) == 18
    shuffled = texts(source.get_dataset("train", shuffle=True, seed=1))
    assert shuffled != in_order and sorted(shuffled) == sorted(in_order)
    assert texts(source.get_dataset("train", shuffle=True, seed=1)) == shuffled
    assert texts(source.get_dataset("train", shuffle=True, seed=2)) != shuffled
    assert len(source.list_shards("train")) == 9 and source.num_input_examples("train") is None


@pytest.mark.parametrize("num_shards", [2, 10])
def test_shards_cover_everything_once(source, num_shards):
    shards = [
        texts(source.get_dataset("train", True, 5, seqio.ShardInfo(i, num_shards)))
        for i in range(num_shards)
    ]
    whole = texts(source.get_dataset("train", False))
    assert sorted(sum(shards, [])) == sorted(whole)


def test_a_malformed_line_further_on_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n' * 3 + "{\n")
    ds = TextFilesDataSource({"train": [str(path)]}).get_dataset("train")
    with pytest.raises(DataError, match="a.jsonl:4 is not JSON"), readable_errors():
        texts(ds)


def test_a_malformed_first_line_is_found_at_once(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"content": "text"}\n')
    with pytest.raises(DataError, match="a.jsonl:1 has no text in 'text'"):
        TextFilesDataSource({"train": [str(tmp_path / "a.jsonl")]}).get_dataset("train")


def test_other_errors_of_tensorflow_stay_as_they_are():
    other = text_sources.tf.errors.OpError(None, None, "something else", 3)
    with pytest.raises(text_sources.tf.errors.OpError, match="something else"), readable_errors():
        raise other


ROWS = [
    {"text": f"document {i}", "timestamp": "2019-04-25T12:57:54Z", "url": "u"} for i in range(6)
]


def write_shards(data_dir, split, num_shards):
    folder = data_dir / "c4" / "en"
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_shards):
        lines = "".join(json.dumps(row) + "\n" for row in ROWS[shard::num_shards])
        path = folder / f"c4-{split}.{shard:05}-of-{num_shards:05}.json.gz"
        path.write_bytes(gzip.compress(lines.encode()))


def test_c4_from_the_shards_of_allenai(tmp_path):
    write_shards(tmp_path, "train", 3)
    context.set_context(data_dir=str(tmp_path))
    source = C4DataSource()
    assert sorted(texts(source.get_dataset("train"))) == [row["text"] for row in ROWS]
    assert [path.rpartition("/")[2] for path in source.list_shards("train")] == [
        f"c4-train.{i:05}-of-00003.json.gz" for i in range(3)
    ]
    assert source.num_input_examples("train") is None
    for name in ("c4-validation", "allenai/c4", "download"):
        with pytest.raises(DataError, match=name):
            source.get_dataset("validation")


def test_c4_from_tensorflow_datasets(tmp_path):
    rows = [{**row, "content-length": "9", "content-type": "text"} for row in ROWS]
    splits = {"train": rows, "validation": rows[:1]}
    prepare_tfds(tmp_path, "c4/en:2.2.0", splits, in_shard=4)
    seqio.set_tfds_data_dir_override(str(tmp_path))
    try:
        source = C4DataSource()
        assert sorted(texts(source.get_dataset("train"))) == [row["text"] for row in ROWS]
        assert source.num_input_examples("train") == 6 and len(source.list_shards("train")) == 2
    finally:
        seqio.set_tfds_data_dir_override(None)


def test_c4_that_cannot_be_built_says_what_to_do(monkeypatch):
    def fail(*_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(seqio.TfdsDataSource, "get_dataset", fail)
    with pytest.raises(DataError) as error:
        C4DataSource().get_dataset("train")
    for word in ("c4/en:2.2.0", "no route to host", "--tfds_data_dir", "c4/en/", ".json.gz"):
        assert word in str(error.value)
