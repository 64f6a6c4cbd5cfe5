"""Lines of text files: decoded, parsed as JSON and checked, every fault named by file and line."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from prompt_tuning.errors import DataError


def read_lines(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file with their numbers, counted from 1.

    Only line feeds end a line: the texts themselves hold characters that `str.splitlines` would split at.

    Args:
      path: The file, decompressed if its name ends in `.gz`; a byte order mark and carriage returns at line ends are
        dropped.

    Raises:
      DataError: A line is not UTF-8 or holds a NUL byte, or the file is no complete gzip file but is named so.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = _decompress(content, path)
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, decode(line.removesuffix(b"\r"), where=f"{path}:{number}")


def decode(line: bytes, *, where: str) -> str:
    """Returns the text of a line.

    Args:
      line: UTF-8 without the line end.
      where: `file:line`, for the error.

    Raises:
      DataError: It is not UTF-8, or holds a NUL byte.
    """
    if b"\0" in line:
        raise DataError(
            f"{where} holds a NUL byte",
            got=line[:80],
            expected="UTF-8 text",
            fix="save the file as UTF-8 (UTF-16 has such bytes), or remove the byte",
        )
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not UTF-8 text",
            got=line[max(error.start - 20, 0) : error.start + 20],
            expected="UTF-8",
            fix="convert the file to UTF-8",
        ) from error


def _decompress(content: bytes, path: epath.Path) -> bytes:
    """Returns what a gzip file holds."""
    try:
        return gzip.decompress(content)
    # What gzip raises for a file that ends early, and for one that is damaged or is none.
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is no complete gzip file ({error})",
            got=path.name,
            expected="a complete gzip file",
            fix="download or copy the file again, or take .gz off the name of a file that is not compressed",
        ) from error


def parse_json_object(line: str, *, where: str) -> dict[str, Any]:
    """Returns the JSON object that a line holds.

    Args:
      line: One line of a JSONL file, or a whole JSON file.
      where: `file:line`, for the error.

    Raises:
      DataError: The line is not JSON, not an object, or beyond what Python reads.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        line_in_file = f"line {error.lineno}, " if "\n" in line else ""
        raise DataError(
            f"{where} is not JSON ({error.msg} at {line_in_file}column {error.colno})",
            got=shorten(line),
            expected="one JSON object a line",
            fix="correct the line",
        ) from error
    # A number of thousands of digits, and brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} holds JSON that cannot be read ({error})",
            got=shorten(line),
            expected="one JSON object a line",
            fix="correct the line",
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{where} is not a JSON object",
            got=shorten(line),
            expected="one JSON object a line",
            fix="correct the line",
        )
    return record


def check_text(value: Any, field: str, *, where: str) -> str:
    """Returns `value` if it is text that a model can read.

    Args:
      value: The value of a field.
      field: Its name.
      where: `file:line`, for the error.

    Raises:
      DataError: It is no text, or holds what UTF-8 cannot write, or a NUL character.
    """
    if not isinstance(value, str):
        raise DataError(
            f"{where} has a value of {field!r} that is not text",
            got=value,
            expected="text in quotes",
            fix=f"correct {field!r} on this line",
        )
    if "\0" in value:
        raise DataError(
            f"{where} has a NUL character in {field!r}",
            got=shorten(value),
            expected="text without \\u0000",
            fix="remove the character",
        )
    return check_characters(value, field, where=where)


def check_characters(text: str, field: str, *, where: str) -> str:
    """Returns `text` if UTF-8 can write it; arguments and error as `check_text`."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has half a surrogate pair in {field!r}",
            got=ascii(text[error.start]),
            expected="whole characters, such as \\ud83d\\ude00",
            fix="correct the escape, or write the character itself",
        ) from error
    return text


def check_columns(header: Sequence[str], *, where: str) -> None:
    """Checks the names of a table's columns.

    Args:
      header: The names.
      where: `file:line`, for the error.

    Raises:
      DataError: A column is named twice.
    """
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataError(
            f"{where} names a column twice",
            got=twice[0],
            expected="a name of its own for each column",
            fix="rename one of the columns",
        )


def shorten(text: str, width: int = 80) -> str:
    """Returns `text`, cut to `width` characters for an error."""
    return text if len(text) <= width else text[: width - 1] + "…"
