"""Lines of text files: decoded, parsed as JSON and checked, every fault named by file and line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

from etils import epath

from prompt_tuning.data import file_kinds
from prompt_tuning.data.content import is_file
from prompt_tuning.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_lines(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file with their numbers, counted from 1, one read at a time.

    Only line feeds end a line: the texts themselves hold characters that `str.splitlines` would split at.

    Args:
      path: The file; a byte order mark and carriage returns at line ends are dropped. Whether it is gzip-compressed is
        seen from its first bytes: some storage decompresses a file and leaves it its name.

    Raises:
      DataError: There is no such file, its first bytes are not those of text, a line is not UTF-8 or holds a NUL byte,
        or the file is no complete gzip file.
    """
    if not is_file(path):
        raise DataError(
            "The file does not exist",
            got=str(path),
            expected="a file",
            fix="correct the path",
            name=path.name,
            candidates=[p.name for p in path.parent.iterdir()] if path.parent.is_dir() else [],
        )
    number = 0
    with path.open("rb") as raw:
        beginning = raw.read(file_kinds.NUM_BYTES)
        _check_beginning(beginning, path)
        is_compressed = beginning.startswith(_GZIP_MAGIC)
        raw.seek(0)
        lines: Iterator[bytes] = iter(gzip.GzipFile(fileobj=raw) if is_compressed else raw)
        while True:
            try:
                line = next(lines, None)
            # What gzip raises for a file that ends early, and for one that is damaged.
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DataError(
                    f"{path} is no complete gzip file; it can be read up to line {number} ({error})",
                    got=path.name,
                    expected="a complete gzip file",
                    fix="download or copy the file again",
                ) from error
            if line is None:
                return
            number += 1
            if number == 1:
                _check_beginning(line, path)
                line = line.removeprefix(_BYTE_ORDER_MARK)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield number, decode(line, where=f"{path}:{number}")


def _check_beginning(beginning: bytes, path: epath.Path) -> None:
    """Raises DataError for a file that is something else than text in UTF-8, by its first bytes."""
    if beginning.startswith(_UTF16_MARKS):
        raise DataError(
            f"{path}:1 holds a NUL byte or a letter of two bytes: the file is UTF-16",
            got=beginning[:20],
            expected="UTF-8 text",
            fix=f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > NEW_FILE",
        )
    found = file_kinds.not_text(beginning)
    if found is not None:
        what, fix = found
        raise DataError(f"{path} is {what}", got=beginning[:20], expected="text", fix=fix)


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
            fix="convert the file to UTF-8, for example iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE",
        ) from error


def parse_json_object(line: str, *, where: str) -> dict[str, Any]:
    """Returns the JSON object that a line holds.

    Args:
      line: One line of a JSONL file, or a whole JSON file.
      where: `file:line`, for the error.

    Raises:
      DataError: The line is not JSON, not an object, or beyond what Python reads.
    """
    record = parse_json(line, where=where)
    if not isinstance(record, dict):
        raise _not_an_object(line, "is not a JSON object", where)
    return record


def parse_json(line: str, *, where: str) -> Any:
    """Returns what a line or a file of JSON holds; arguments and errors as `parse_json_object`."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        line_in_file = f"line {error.lineno}, " if "\n" in line else ""
        fault = f"is not JSON ({error.msg} at {line_in_file}column {error.colno})"
    # A number of thousands of digits, and brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        fault = f"holds JSON that cannot be read ({error})"
    raise _not_an_object(line, fault, where)


def _not_an_object(line: str, fault: str, where: str) -> DataError:
    """The error for a line that is no JSON object."""
    return DataError(
        f"{where} {fault}",
        got=shorten(line),
        expected="one JSON object a line",
        fix="write each object on a line of its own"
        if line.strip() in ("{", "}", "},", "]")
        else "correct the line",
    )


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


def shorten(text: str, width: int = 80) -> str:
    """Returns `text`, cut to `width` characters for an error."""
    return text if len(text) <= width else text[: width - 1] + "…"
