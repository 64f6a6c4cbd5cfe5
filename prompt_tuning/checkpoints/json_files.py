"""Small files that are replaced whole, so that a killed process never leaves half of one."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath


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
