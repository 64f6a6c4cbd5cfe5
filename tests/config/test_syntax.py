"""Text that gin cannot read: whoever does what the error says has mended it."""

import re

import pytest

from prompt_tuning.config import files
from prompt_tuning.config.files import Binding
from prompt_tuning.errors import ConfigError

BLOCK = "tasks.from_files:\n  name = 'x'\n"


def values(text, path):
    path.write_text(text)
    found = files.read([str(path)]).statements
    return [(s.selector, s.value) for s in found if isinstance(s, Binding)]


@pytest.mark.parametrize(
    ("text", "what", "mended"),
    [
        ("X = \u2018w\u2019\n", "curly quotes", "w"),
        ("X = [\u201ca\u201d, \u2018b']\n", "curly quotes", ["a", "b"]),
        ("X = {0: 'n' 1: 'p'}\n", "comma is missing", {0: "n", 1: "p"}),
        ("X = ['a' 'b']\n", "comma is missing", ["a", "b"]),
        ("X = ['a',\n  'b'\n  'c']\n", "comma is missing", ["a", "b", "c"]),
        ("X = {'a': 3\n  'b': 4}\n", "comma is missing", {"a": 3, "b": 4}),
        ("X\u00a0= 4\n", "no-break space", 4),
        ("X = \u200b4\n", "odd blank", 4),
        ("X = 1e\u22123\n", "by a minus", 1e-3),
        (f"{BLOCK}    train = 'y'\n", "indent .* by 2 spaces", "y"),
        (f"{BLOCK}\ttrain = 'y'\n", "indent .* by 2 spaces", "y"),
        ("tasks.from_files:\n    name = 'x'\n  train = 'y'\n", "indent .* by 4 spaces", "y"),
        ("tasks.from_files:\ntrain = 'y'\n", "indent .* by 2 spaces", "y"),
        ("X = ['a', 'b'\nY = 4\n", "closing bracket is missing", ["a", "b"]),
        ("X = ['a',\n  'b'\nY = 4\nZ = 5\n", "closing bracket is missing", ["a", "b"]),
        ("X = {'a': [4, (5, 6)\n", "closing bracket is missing", {"a": [4, (5, 6)]}),
        ("X = ['a', 'b')\n", "closing bracket of the right kind", ["a", "b"]),
        ("X = ['a']]\n", "closing bracket of the right kind", ["a"]),
        ("X = 'abc\n", "quote is missing", "abc"),
        ("X = ['a', 'b]\n", "quote is missing", ["a", "b"]),
        ("X = 'it's'\n", "write", "it's"),
        ("X = [a, b]  # two\n", "quote each text", ["a", "b"]),
        ("X = [true, null]\n", "write", [True, None]),
        ("X: 4\n", "write", 4),
        ("X == 4\n", "write", 4),
        ("X 4\n", "write", 4),
        ("--gin.X=4\n", "write", 4),
        ("X = 4;\n", "end the line", 4),
        ("X = 4 // steps\n", "comment with #", 4),
        ("X = 1,000\n", "write", 1000),
        ("X = {1, 2}\n", "in \\[ \\]", [1, 2]),
    ],
)
def test_what_an_error_says_mends_the_text(tmp_path, text, what, mended):
    path = tmp_path / "a.gin"
    with pytest.raises(ConfigError, match=what) as error:
        values(text, path)
    said = re.search(r"a\.gin:(\d+): .* Fix: .*?(?:: (?!\d)|write )(.+)\.$", str(error.value))
    assert said is not None, error.value
    lines = text.split("\n")
    number = int(said[1]) - 1
    width = re.search(r"by (\d+) spaces", str(error.value))
    indent = int(width[1]) if width else len(lines[number]) - len(lines[number].lstrip(" "))
    lines[number] = " " * indent + said[2]
    assert mended in [value for _, value in values("\n".join(lines), path)]


def test_a_flag_is_shown_as_a_shell_takes_it():
    with pytest.raises(ConfigError) as error:
        files.read([], [("X = [\u2018a\u2019", "--gin.X=[\u2018a\u2019")])
    assert str(error.value).endswith("""--gin.X="['a']".""")


def test_a_file_in_another_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.gin"
    for content, words in (
        ("A = 1\nX = 'é'\n".encode("latin-1"), r"a.gin:2: the file is not UTF-8.*iconv"),
        ("X = 1\n".encode("utf-16"), r"a.gin:1: the file is UTF-16.*iconv -f UTF-16"),
    ):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            files.read([str(path)])
    path.write_bytes("\ufeffX = 'é'\r\n".encode())
    (found,) = files.read([str(path)]).statements
    assert isinstance(found, Binding) and found.value == "é"


@pytest.mark.parametrize("text", ["X = ('a'\n  'b')\n", "X = [('a' 'b')]\n", "X = 'a' 'b'\n"])
def test_a_long_text_may_be_written_in_parts(tmp_path, text):
    assert values(text, tmp_path / "a.gin")[0][1] in ("ab", ["ab"])
