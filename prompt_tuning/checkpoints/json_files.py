"""Small JSON files: replaced whole so that nobody meets half of one, with a digest that is checked on reading."""

import contextlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.data import content
from prompt_tuning.errors import unreadable

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp")


def write_atomically(path: epath.Path, data: bytes) -> None:
    """Writes a file such that a reader, or a process killed meanwhile, sees the old or the new content, never half."""
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(Exception):
            temporary.unlink()
        raise


def temporary_beside(path: epath.Path) -> epath.Path:
    """Returns where to write what becomes `path`: a name that nobody can have foreseen and put a link in its place."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"


def sweep(folder: epath.Path, part: str = "") -> None:
    """Removes what writers that were killed have left half-written; to be called by the only writer of a folder.

    Args:
      folder: A folder.
      part: What the names of files begin with that this writer has to itself.
    """
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if _TEMPORARY.fullmatch(path.name) and path.name.startswith(f".{part}") and path.is_file():
            path.unlink(missing_ok=True)


def encode(info: Mapping[str, Any]) -> bytes:
    """Returns readable JSON with its digest; NumPy scalars become numbers, and what JSON cannot hold its text."""

    def convert(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else str(value)

    plain = content.sealed(json.loads(json.dumps(info, default=convert)))
    return (json.dumps(plain, indent=1, sort_keys=True) + "\n").encode()


def read(path: epath.Path, *, expected: str, fix: str) -> dict[str, Any]:
    """Returns the JSON object in a file, without its digest.

    Args:
      path: The file.
      expected: What it should be, for the message.
      fix: What to do about a damaged one, for the message.

    Raises:
      CheckpointError: If it is missing, or holds anything else, or not what was written.
    """
    try:
        if path.exists() and not content.is_file(path):
            raise ValueError("no file, but a folder, a device or a pipe")
        return content.unsealed(json.loads(path.read_text(), object_pairs_hook=_unique))
    except (OSError, ValueError) as e:
        raise unreadable(path, e, expected=expected, fix=fix) from e


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError if it gives a name two values, of which `json` would take the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that has two values")
    return found
