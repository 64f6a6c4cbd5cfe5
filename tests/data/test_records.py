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


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text;label\nnice, warm;0\n", ["a.csv:1", "separated by ';'", "commas between"]),
        ("a.csv", '"text";"label"\n"nice";0\n', ["a.csv:1", "separated by ';'"]),
        ("a.csv", "text|label\na|0\n", ["separated by '|'"]),
        ("a.csv", "text\tlabel\na\t0\n", ["separated by tabs", "ends in .tsv"]),
        ("a.tsv", "text,label\na,0\n", ["separated by commas", "ends in .csv"]),
        ("a.tsv", f"{GOOD}\n", ["holds JSON", "ends in .jsonl"]),
        ("a.csv", f"[{GOOD}]", ["holds JSON", "ends in .jsonl"]),
        ("a.jsonl", "label,text\n0,a\n", ["separated by commas", "ends in .csv"]),
        ("a.jsonl", "{\n", ["a.jsonl:1", "a line of its own"]),
        ("a.tsv", '"text"\t"label"\na\t0\n', ["no column 'text'", "remove the quotes"]),
        ("a.tsv", 'text\tlabel\n"two\nlines"\t0\n', ["a.tsv:2", "save the file as CSV"]),
        ("a.csv", b"\xff\xfe" + "text,label\n天,0\n".encode("utf-16-le"), ["UTF-16", "iconv"]),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid 1\n", ["LFS pointer", "pull"]),
        ("a.csv", b"PK\x03\x04\x14\x00", ["zip archive", "save the sheet as CSV"]),
        ("a.jsonl", b"PAR1\x15\x04", ["Parquet"]),
        ("a.tsv", "<!DOCTYPE html>\n<html>", ["web page"]),
    ],
)
def test_a_file_of_another_kind_than_its_name_says_is_named(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        read(path)
    for word in [str(path), "Fix: ", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "label,text,,\n0,a,,\n1,b,,\n"),
        ("a.csv", "label,text,note,note\n0,a,x,y\n1,b,x,y\n"),
        ("a.csv", " label , text\n0,a,\n1,b,,\n"),
        ("a.tsv", "\tlabel\ttext\n0\t0\ta\n1\t1\tb\n"),
        ("a.jsonl", '[{"label": "0", "text": "a"},\n {"label": "1", "text": "b"}]\n'),
        ("a.json", '\n  [\n{"label": "0", "text": "a"}, {"label": "1", "text": "b"}\n]'),
    ],
)
def test_what_no_one_uses_is_no_ones_business(tmp_path, name, content):
    found = [record for _, record in read(write(tmp_path / name, content))]
    assert [(r["label"], r["text"]) for r in found] == [("0", "a"), ("1", "b")]
    twice = write(tmp_path / "twice.csv", "text,note,note\na,b,c\n")
    with pytest.raises(DataError, match="names a column twice"):
        list(records.read_records(epath.Path(twice), ["text"], optional=["note"]))


def test_an_item_of_an_array_is_named(tmp_path):
    path = write(tmp_path / "a.json", f"[{GOOD},\n 5]")
    with pytest.raises(DataError, match=r"a.json item 2 is not a JSON object"):
        read(path)
    with pytest.raises(DataError, match=r"a.json is not JSON \(.* at line 2, column \d+\)"):
        read(write(path, f"\n[{GOOD},\n"))


def test_quoted_cells_of_tsv_are_text_and_warned_of(tmp_path, caplog):
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"she said ""go"""\t0\n"b\t1\n')
    assert [r["text"] for _, r in read(path)] == ['"she said ""go"""', '"b']
    assert "a.tsv:2: cells look quoted (1, first" in caplog.text
    caplog.clear()
    read(write(path, 'text\tlabel\n"b\t1\nc "d" e\t0\n'))
    assert not caplog.text
