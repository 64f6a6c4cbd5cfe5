"""Reading documents: what is accepted, and what is refused with file, line and remedy."""

import gzip
import json

import pytest

from prompt_tuning.data.text import text_files
from prompt_tuning.errors import DataError


def write(path, content):
    """Writes text or bytes, compressed where the name says so, and returns the path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def read(path, text_field="text"):
    return list(text_files.read_documents(path, text_field))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "no_suffix", "b.TXT"])
def test_plain_text_holds_a_document_a_line(tmp_path, name):
    content = "\ufeffThe first.\r\n\r\n  \nThe\u2028second\x85 \U0001f600\x01\nno end"
    expected = ["The first.", "The\u2028second\x85 \U0001f600\x01", "no end"]
    assert read(write(tmp_path / name, content)) == expected


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.jsonl.gz"])
def test_json_holds_an_object_a_line(tmp_path, name):
    texts = ["two\nlines\r\n", "", "é\u2028\U0001f600\x00", "x" * 1_000_000]
    lines = [json.dumps({"url": "u", "text": text}, ensure_ascii=False) for text in texts]
    path = write(tmp_path / name, "\ufeff" + "\r\n".join([*lines, "", ""]))
    assert read(path) == texts


def test_another_field_and_escapes(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"body": "\\ud83d\\ude00 \\u00e9"}\n')
    assert read(path, "body") == ["\U0001f600 é"]


def test_compression_is_seen_from_the_content(tmp_path):
    plain = write(tmp_path / "a.txt", "text")
    (tmp_path / "b.txt").write_bytes(gzip.compress(b"packed\n"))
    assert read(plain) == ["text"] and read(str(tmp_path / "b.txt")) == ["packed"]


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"text": "a"', ["is not JSON", "column"]),
        ("[1, 2]", ["not a JSON object"]),
        ('{"Text": "a"}', ["no text in 'text'", "text_field", "Closest matches: Text"]),
        ('{"text": ["a"]}', ["no text in 'text'", "got ['a']"]),
        ('{"text": "\\ud800 half"}', ["half a surrogate pair"]),
        (b'{"text": "\xff"}', ["is not UTF-8", "convert the file"]),
        (b'{"text": "\x00"}', ["NUL byte", "UTF-16"]),
    ],
)
def test_a_malformed_line_is_named(tmp_path, packed, line, words):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / f"a.jsonl{packed}", b'{"text": "good"}\n\n' + line + b"\n")
    with pytest.raises(DataError) as error:
        read(path)
    for word in [f"{path}:3", "Fix: ", *words]:
        assert word in str(error.value)


def test_a_plain_line_that_is_not_utf8_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a.txt:2 is not UTF-8"):
        read(write(tmp_path / "a.txt", b"fine\nbad \xff\n"))
    with pytest.raises(DataError, match="b.txt:1 holds a NUL byte"):
        read(write(tmp_path / "b.txt", "UTF-16".encode("utf-16")))


@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.txt.gz"])
def test_an_empty_file_is_refused(tmp_path, name, content):
    with pytest.raises(DataError, match=f"holds no text.*{name}"):
        read(write(tmp_path / name, content))


def test_a_damaged_gzip_file_is_named(tmp_path):
    lines = "".join(f"line {i} {hash(str(i))}\n" for i in range(5_000)).encode()
    packed = gzip.compress(lines)
    path = tmp_path / "a.txt.gz"
    for content in (packed[: len(packed) // 2], packed[:-4], packed[:30], packed + b"rest"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="a.txt.gz is no complete gzip file"):
            read(str(path))
    broken = bytearray(packed)
    broken[len(packed) // 2] ^= 255
    path.write_bytes(bytes(broken))
    with pytest.raises(DataError, match="no complete gzip file|not UTF-8"):
        read(str(path))


def test_files_are_found_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.jsonl.gz", "sub/d.txt", "odd[1].txt"):
        write(tmp_path / name, "{}")
    (tmp_path / "folder.txt").mkdir()
    root = str(tmp_path)
    assert text_files.find_files(f"{root}/[a-b].txt") == [f"{root}/a.txt", f"{root}/b.txt"]
    assert text_files.find_files([f"{root}/b.txt", f"{root}/?.txt", f"{root}/*/*.txt"]) == [
        f"{root}/b.txt",
        f"{root}/a.txt",
        f"{root}/sub/d.txt",
    ]
    assert text_files.find_files(f"{root}/odd[1].txt") == [f"{root}/odd[1].txt"]


def test_relative_globs(tmp_path, monkeypatch):
    write(tmp_path / "a.txt", "a")
    monkeypatch.chdir(tmp_path)
    assert text_files.find_files("*.txt") == ["a.txt"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.txt", "does not exist"),
        ("none-*.txt", "No file matches.*none-"),
        ("nowhere/*.txt", "No file matches"),
        ("a.parquet", "of no known kind.*a.parquet"),
        ("*.zst", "of no known kind.*a.json.zst"),
    ],
)
def test_patterns_that_name_nothing_readable(tmp_path, pattern, message):
    write(tmp_path / "a.parquet", "x")
    write(tmp_path / "a.json.zst", "x")
    with pytest.raises(DataError, match=message):
        text_files.find_files(str(tmp_path / pattern))
    with pytest.raises(DataError, match="does not exist"):
        read(str(tmp_path / "none.txt"))
