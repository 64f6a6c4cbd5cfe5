"""Names of folders, local and in object stores."""

import os
import posixpath
import re
from collections.abc import Iterable
from typing import SupportsInt

from etils import epath

# What a save is called, in MODEL_DIR and among its prompts.
STEP_PREFIX = "checkpoint_"
_STEP_DIR = re.compile(rf"{STEP_PREFIX}(\d+)")
# File names in a message; more would not be read.
_MAX_SHOWN = 5
_SCHEME = "://"
_GOOGLE = "gs://"


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path that means the same from any working directory; gs:// and the like as they are."""
    text = os.fspath(path)
    return epath.Path(text if _SCHEME in text else os.path.abspath(text))


def in_object_store(path: epath.PathLike) -> bool:
    """Returns whether `path` is on gs://, which cannot rename a folder in one go."""
    return os.fspath(path).startswith(_GOOGLE)


def steps_in(directory: epath.PathLike) -> list[int]:
    """Returns the steps of all `checkpoint_{step}` directories, T5X's too, in ascending order."""
    directory = epath.Path(directory)
    if not directory.is_dir():
        return []
    matches = (_STEP_DIR.fullmatch(path.name) for path in directory.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def step_of(stored: SupportsInt | None, name: str) -> int | None:
    """Returns the step that is stored, else the one in the directory's name, else None."""
    if stored is not None:
        return int(stored)
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def kvstore(folder: epath.PathLike) -> dict[str, str]:
    """Returns TensorStore's name for a local or gs:// folder."""
    text = os.fspath(folder)
    if text.startswith(_GOOGLE):
        bucket, _, key = text.removeprefix(_GOOGLE).partition("/")
        return {"driver": "gcs", "bucket": bucket, "path": key.rstrip("/") + "/"}
    return {"driver": "file", "path": os.path.abspath(text) + "/"}


def moved_along(path: str, old_home: str, home: epath.PathLike) -> epath.Path | None:
    """Returns where `path` is now if everything around `old_home` was moved or copied together.

    Args:
      path: Where it was, for example "/old/t5/checkpoint_100".
      old_home: A folder that was moved, as it was called then: "/old/runs/sst2".
      home: The same folder now: "/new/runs/sst2" makes the result "/new/t5/checkpoint_100".

    Returns:
      The path now; None if `path` and `old_home` were not on one file system.
    """
    (scheme, there), (old_scheme, old) = _split(path), _split(old_home)
    if scheme != old_scheme or posixpath.isabs(there) != posixpath.isabs(old):
        return None
    new_scheme, new = _split(absolute(home))
    joined = posixpath.normpath(posixpath.join(new, posixpath.relpath(there, old)))
    return epath.Path(new_scheme + joined)


def _split(path: epath.PathLike) -> tuple[str, str]:
    """("gs://", "bucket/folder"), or ("", path) of a local one."""
    text = os.fspath(path)
    scheme, separator, rest = text.rpartition(_SCHEME)
    return scheme + separator, rest


def shown(names: Iterable[str]) -> str:
    """Returns the first few of some names for a message, sorted, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - _MAX_SHOWN} more" if len(listed) > _MAX_SHOWN else ""
    return ", ".join(listed[:_MAX_SHOWN]) + more
