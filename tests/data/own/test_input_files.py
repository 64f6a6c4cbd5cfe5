"""Files of inputs for inference."""

import gzip

import pytest

from prompt_tuning.data.own.input_files import read_examples
from prompt_tuning.errors import DataError
from tests.data.local_data import write_jsonl


def test_jsonl(tmp_path):
    rows = [{"inputs": "ä b", "targets": "no"}, {"inputs": "", "targets": "yes", "id": 7}]
    path = write_jsonl(tmp_path / "a.jsonl", [*rows, ""])
    assert read_examples(str(path)) == rows


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.tsv.gz", "a.txt.gz"])
def test_compressed_files_are_read_as_what_their_names_say(tmp_path, name):
    content = {"jsonl": '{"inputs": "ä b"}\n', "tsv": "inputs\nä b\n", "txt": "ä b\n"}
    packed = gzip.compress(content[name.split(".")[1]].encode())
    (tmp_path / name).write_bytes(packed)
    assert read_examples(str(tmp_path / name)) == [{"inputs": "ä b"}]
    (tmp_path / name).write_bytes(packed[:-4])
    with pytest.raises(DataError, match=f"{name} is no complete gzip file"):
        read_examples(str(tmp_path / name))


def test_tsv(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b'id\tinputs\ttargets\r\n1\t"a \tyes\r\n2\t b\tno\r\n')
    assert read_examples(str(path)) == [
        {"id": "1", "inputs": '"a ', "targets": "yes"},
        {"id": "2", "inputs": " b", "targets": "no"},
    ]


def test_plain_text_keeps_one_example_a_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one \n\ntwo\u2028half".encode())
    assert [e["inputs"] for e in read_examples(str(path))] == ["one ", "", "two\u2028half"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"inputs": "a"}\n{"inputs": \n', ["a.jsonl:2", "not JSON"]),
        ("a.jsonl", '{"inputs": "a"}\n{"input": "b"}\n', ["a.jsonl:2", "'inputs'"]),
        ("a.jsonl", '{"inputs": ["a"]}\n', ["a.jsonl:1", "not text"]),
        ("a.jsonl", '{"inputs": "a", "targets": 1}\n', ["a.jsonl:1", "'targets'"]),
        (
            "a.jsonl",
            '{"inputs": "a", "targets": "b"}\n\n{"inputs": "a"}\n',
            ["a.jsonl:3", "'targets'", "1 of 2"],
        ),
        ("a.jsonl", '"a"\n', ["a.jsonl:1", "not a JSON object"]),
        ("a.jsonl", "\n", ["a.jsonl", "no examples"]),
        ("a.tsv", "sentence\nb\n", ["a.tsv:1", "'inputs'"]),
        ("a.txt", "", ["a.txt", "no examples"]),
    ],
)
def test_a_malformed_file_is_named(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_examples(str(path))
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="none.jsonl"):
        read_examples(str(tmp_path / "none.jsonl"))


def test_csv_is_read_as_a_tasks_files_are(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('inputs,targets,\n"light, and brave",yes,\n"two\nlines",no,\n')
    assert read_examples(str(path)) == [
        {"inputs": "light, and brave", "targets": "yes"},
        {"inputs": "two\nlines", "targets": "no"},
    ]


def test_targets_that_are_withheld_from_all_are_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("inputs,targets\na,\nb,\n")
    assert read_examples(str(path)) == [{"inputs": "a"}, {"inputs": "b"}]
    path = write_jsonl(tmp_path / "a.jsonl", [{"inputs": "a", "targets": None}])
    assert read_examples(str(path)) == [{"inputs": "a"}]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs,targets\na,b\n", "separated by commas.*ends in .csv"),
        ("id\tinputs\n1\ta\n", "separated by tabs.*ends in .tsv"),
        ("inputs\na\n", "ends in .csv"),
        ('{"inputs": "a"}\n', "holds JSON.*ends in .jsonl"),
    ],
)
def test_a_table_is_not_taken_for_lines_of_text(tmp_path, text, words):
    path = tmp_path / "a.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        read_examples(str(path))
    path.write_text("these inputs, and others\na\n")
    assert len(read_examples(str(path))) == 2
