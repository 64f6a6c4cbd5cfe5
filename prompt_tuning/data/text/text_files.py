"""Documents in plain text and JSONL, gzip-compressed or not, on disk or gs://, read one line at a time."""

from collections.abc import Iterator, Sequence

from etils import epath

from prompt_tuning.data.lines import check_characters, parse_json_object, read_lines
from prompt_tuning.data.records import JSON_SUFFIXES, suffix
from prompt_tuning.errors import DataError

PLAIN_SUFFIXES = (".txt", ".text", "")
_WILDCARDS = "*?["


def find_files(patterns: str | Sequence[str]) -> list[str]:
    """Returns the files that paths and globs name.

    Args:
      patterns: Paths, or globs such as `gs://bucket/c4-train.*.json.gz`, one or several.

    Returns:
      Paths in the order of `patterns`, those of a glob sorted, each once.

    Raises:
      DataError: A path does not exist, a glob matches nothing, or a file is of no known kind.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    found = list(dict.fromkeys(path for pattern in patterns for path in _expand(pattern)))
    for path in found:
        _is_json(epath.Path(path))
    return found


def read_documents(path: str, text_field: str) -> Iterator[str]:
    """Yields the documents of a file.

    Carriage returns at line ends and a byte order mark are dropped, blank lines skipped.

    Args:
      path: `*.jsonl` or `*.json`, one object a line; or `*.txt`, one document a line. With or without `.gz` behind;
        whether a file is compressed is seen from its first bytes.
      text_field: Where JSON objects hold their text.

    Yields:
      Texts in the file's order; a JSON object's may be empty.

    Raises:
      DataError: The file is missing, empty, or damaged, or a line is malformed (named by file and line).
    """
    file = epath.Path(path)
    is_json = _is_json(file)
    is_empty = True
    for number, line in read_lines(file):
        if line.strip():
            is_empty = False
            yield _field(line, text_field, where=f"{path}:{number}") if is_json else line
    if is_empty:
        raise DataError(
            "The file holds no text",
            got=path,
            expected="at least one document",
            fix="put text into the file, or leave it out",
        )


def _expand(pattern: str) -> list[str]:
    """Returns the sorted files that one path or glob names."""
    wildcard = next((i for i, c in enumerate(pattern) if c in _WILDCARDS), None)
    file = epath.Path(pattern)
    # A name may hold brackets itself.
    if wildcard is None or file.is_file():
        if not file.is_file():
            raise DataError(
                "The text file does not exist",
                got=pattern,
                expected="a file, or a glob such as 'folder/*.jsonl.gz'",
                fix="correct the path",
            )
        return [pattern]
    cut = pattern.rfind("/", 0, wildcard) + 1
    matches = epath.Path(pattern[:cut] or ".").glob(pattern[cut:])
    found = sorted(str(match) for match in matches if match.is_file())
    if not found:
        raise DataError(
            "No file matches",
            got=pattern,
            expected="a glob that matches at least one file",
            fix="correct the pattern, and quote it so that the shell does not expand it",
        )
    return found


def _is_json(file: epath.Path) -> bool:
    """Whether a file's name says JSON, or else plain text."""
    kind = suffix(file)
    if kind in (*JSON_SUFFIXES, *PLAIN_SUFFIXES):
        return kind in JSON_SUFFIXES
    raise DataError(
        "The file is of no known kind",
        got=str(file),
        expected=f"{', '.join(JSON_SUFFIXES)} or .txt, each also with .gz",
        fix="convert the file, or give it such a name",
    )


def _field(line: str, field: str, *, where: str) -> str:
    """Returns the text of a JSON object."""
    record = parse_json_object(line, where=where)
    text = record.get(field)
    if not isinstance(text, str):
        raise DataError(
            f"{where} has no text in {field!r}",
            got=text if field in record else ", ".join(map(repr, record)),
            expected=f"text in {field!r}",
            fix="correct the line, or set text_field to the name that the files use",
            name=field,
            candidates=record,
        )
    # A NUL character that is written as an escape is let through: one page of a crawl must not end a run of days.
    return check_characters(text, field, where=where)
