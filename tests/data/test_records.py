"""JSONL, TSV and CSV: what is odd but valid, and what is refused with file, line and remedy."""

import csv
import json

import pytest
from etils import epath

from prompt_tuning.data import lines, records
from prompt_tuning.errors import DataError

GOOD = '{"id": 1, "text": "a", "label": 0}'
# Everything that a text may hold: controls, a line separator, a right-to-left mark, emoji of several code points.
ODD = "tab\t bell\x07 delete\x7f next\x85line\u2028 mark\u200f é e\u0301 👩‍👩‍👧 🇫🇷"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path, fields=("text",)):
    return list(records.read_records(epath.Path(path), fields))


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "csv"])
def test_odd_but_valid_files_are_read(tmp_path, suffix):
    long = "x" * 1_000_000
    texts = [ODD.replace("\t", " ") if suffix == "tsv" else ODD, long, ""]
    if suffix == "jsonl":
        lines = ["", *(json.dumps({"text": text}, ensure_ascii=False) for text in texts)]
    else:
        cells = [f'"{t}"' if suffix == "csv" else t for t in texts]
        separator = "," if suffix == "csv" else "\t"
        lines = [f"text{separator}label", *(f"{c}{separator}0" for c in cells)]
    # A byte order mark, carriage returns, and no line end at the end.
    path = write(tmp_path / f"a.{suffix}", "\ufeff" + "\r\n".join(lines))
    limit = csv.field_size_limit()
    found = read(path)
    assert [record["text"] for _, record in found] == texts
    assert [where for where, _ in found] == [f"{path}:{n}" for n in (2, 3, 4)]
    assert csv.field_size_limit() == limit


def test_a_carriage_return_in_a_cell_is_text(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\r\na\rb,0\r\n"c\rd",1\r\n')
    assert [record["text"] for _, record in read(path)] == ["a\rb", "c\rd"]


def test_a_number_and_its_text_are_one_id():
    values = [("a.jsonl:1", 1), ("a.jsonl:2", 2), ("b.jsonl:1", "1")]
    records.check_ids("id", values[:2])
    with pytest.raises(DataError, match=r"b.jsonl:1 has the 'id'.*a.jsonl:1 has the same.*number"):
        records.check_ids("id", values)


def test_a_quoted_cell_of_csv_may_span_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"two\n""quoted"", lines",0\nnext,1\n')
    assert [(w.split(":")[-1], r["text"]) for w, r in read(path)] == [
        ("2", 'two\n"quoted", lines'),
        ("4", "next"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("a.jsonl", f"{GOOD}\n{{'text': 1}}\n", 2, ["not JSON"]),
        ("a.jsonl", f"{GOOD}\n\n[1]\n", 3, ["not a JSON object"]),
        ("a.jsonl", f"{GOOD}\n{'[' * 100_000}\n", 2, ["cannot be read"]),
        ("a.jsonl", f'{GOOD}\n{{"n": {"9" * 5000}}}\n', 2, ["cannot be read", "digits"]),
        ("a.jsonl", f"{GOOD}\n".encode() + b'{"text": "\xe9"}\n', 2, ["not UTF-8", "convert"]),
        ("a.jsonl", f"{GOOD}\n".encode() + b'{"text": "a\x00"}\n', 2, ["NUL byte", "remove"]),
        ("a.jsonl", GOOD.encode("utf-16"), 1, ["NUL byte", "UTF-16"]),
        ("a.tsv", "text\tlabel\na\t0\na\tb\t0\n", 3, ["columns", "got 3", "2 (text, label)"]),
        ("a.tsv", "text\tlabel\n\na\t0\n", 2, ["columns", "got 1"]),
        ("a.tsv", "texts\tlabel\na\t0\n", 1, ["no column 'text'", "Closest matches: texts"]),
        ("a.tsv", "text\ttext\na\t0\n", 1, ["twice"]),
        ("a.csv", "text,label\na\n", 2, ["columns"]),
        ("a.csv", 'text,label\na,0\n"b,0\nc,1\n', 3, ["not CSV", "doubled"]),
        ("a.csv", 'text,label\n"b"c,0\n', 2, ["not CSV"]),
    ],
)
def test_a_malformed_line_is_named(tmp_path, name, content, line, words):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        read(path)
    for word in [f"{path}:{line} ", "Fix: ", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("content", ["", "\n\n", "text\tlabel\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = write(tmp_path / ("a.tsv" if "text" in content else "a.jsonl"), content)
    with pytest.raises(DataError, match="holds no examples"):
        read(path)


def test_a_missing_file_names_the_closest(tmp_path):
    write(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(DataError, match=r"does not exist.*Closest matches: train.jsonl"):
        read(tmp_path / "trian.jsonl")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (3, ["not text", "got 3"]),
        (None, ["not text"]),
        (["a"], ["not text"]),
        ("a\0", ["NUL character"]),
        ("a\ud83d", ["half a surrogate pair", "ud83d"]),
    ],
)
def test_a_value_that_no_model_can_read_is_named(value, words):
    with pytest.raises(DataError) as error:
        lines.check_text(value, "text", where="a.jsonl:7")
    for word in ["a.jsonl:7 ", "'text'", "Fix: ", *words]:
        assert word in str(error.value)
    assert lines.check_text(ODD, "text", where="") == ODD
