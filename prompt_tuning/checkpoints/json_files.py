"""Small JSON files: read with an error that says what they are, replaced whole so that nobody meets half of one."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.errors import unreadable


def write_atomically(path: epath.Path, content: bytes) -> None:
    """Writes a file such that a reader, or a process killed meanwhile, sees the old or the new content, never half."""
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    temporary.write_bytes(content)
    temporary.replace(path)


def encode(info: Mapping[str, Any]) -> bytes:
    """Returns readable JSON; NumPy scalars become numbers, and what JSON cannot hold its text."""

    def convert(value: Any) -> Any:
        return value.item() if isinstance(value, np.generic) else str(value)

    return (json.dumps(info, indent=1, sort_keys=True, default=convert) + "\n").encode()


def read(path: epath.Path, *, expected: str, fix: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
      path: The file.
      expected: What it should be, for the message.
      fix: What to do about a damaged one, for the message.

    Raises:
      CheckpointError: If it is missing, or holds anything else.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"a JSON {type(content).__name__}")
        return content
    except (OSError, ValueError) as e:
        raise unreadable(path, e, expected=expected, fix=fix) from e
