"""What a file is by its first bytes, where its name says something else."""

from etils import epath

from prompt_tuning.data import content

# How a file begins -> what it is, and what makes of it what was meant. First what stands in place of any file.
_STAND_INS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, which stands for a file that was not downloaded",
        "run `git lfs pull` in the folder, or download the file itself",
    ),
    (b"<!doctype", "a web page", "download the file itself, not the page about it"),
    (b"<html", "a web page", "download the file itself, not the page about it"),
)
_NO_TEXT = (
    (b"PK\x03\x04", "a zip archive, as spreadsheets are", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet or document", "save the sheet as CSV"),
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it with unzstd"),
    (b"PAR1", "a Parquet file", "write it as JSONL, for example pandas' to_json(lines=True)"),
    (b"ARROW1", "an Arrow file", "write it as JSONL, for example pandas' to_json(lines=True)"),
    (b"SQLite format 3", "a database", "write its table as CSV"),
    (b"%PDF", "a PDF", "save its text"),
)
NUM_BYTES = 64


def not_text(beginning: bytes) -> tuple[str, str] | None:
    """Returns what a file is and what to do about it; None for one that may be text.

    Args:
      beginning: Its first bytes, `NUM_BYTES` of them or more.
    """
    return _find(beginning, (*_STAND_INS, *_NO_TEXT))


def stand_in(path: epath.PathLike) -> tuple[str, str] | None:
    """Returns what stands in place of the file that was meant, and what to do; None if nothing does.

    Args:
      path: A file that could not be read as what it should be.
    """
    try:
        if not content.is_file(path):
            return None
        with epath.Path(path).open("rb") as stream:
            return _find(stream.read(NUM_BYTES), _STAND_INS)
    # Whatever a file system or an object store raises has been told of before.
    except Exception:
        return None


def _find(beginning: bytes, kinds: tuple[tuple[bytes, str, str], ...]) -> tuple[str, str] | None:
    """The first of the kinds that begins so."""
    begins = beginning.lstrip(b"\xef\xbb\xbf \t\r\n")
    for magic, what, fix in kinds:
        if begins[: len(magic)].lower() == magic.lower():
            return what, fix
    return None
