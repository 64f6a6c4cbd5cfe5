"""The table of a sweep: `results.jsonl`, a row a finished cell, to which several processes and hosts may append."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath
from filelock import FileLock

from prompt_tuning.checkpoints import json_files

TABLE = "results.jsonl"
CELLS = "cells.json"
_LOCK = "results.lock"
_LOCK_POLL_SECONDS = 0.01
DONE, FAILED = "done", "failed"
Row = dict[str, Any]


class Table:
    """The rows of a folder; also what several processes agree by.

    Args:
      directory: Folder of the sweep, on a file system that all its processes share.
    """

    def __init__(self, directory: str | os.PathLike):
        self.directory = pathlib.Path(directory)
        self.path = self.directory / TABLE

    def locked(self) -> FileLock:
        """Lets one process at a time run a `with` block; the system opens the lock when that process dies."""
        self.directory.mkdir(parents=True, exist_ok=True)
        return FileLock(self.directory / _LOCK, poll_interval=_LOCK_POLL_SECONDS)

    def append(self, row: Row) -> None:
        """Adds a row inside `locked`, whole or not at all as far as readers can tell."""
        text = json.dumps(_finite(row)).encode() + b"\n"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            # A writer was killed in the middle of a line: it stays a line of its own, which no reader takes.
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                text = b"\n" + text
            written = os.write(descriptor, text)
            if written != len(text):
                raise OSError(f"{self.path}: {written} of {len(text)} bytes were written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write_cells(self, cells: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
        """Says which cells sweeps have, now that they are run with these settings; the report reads it.

        Args:
          cells: Sweep -> scale, "" for none -> key -> label. What the file says of other sweeps and scales stays.
        """
        path = self.directory / CELLS
        with self.locked():
            known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for sweep, scales in cells.items():
                known.setdefault(sweep, {}).update(scales)
            json_files.write_atomically(epath.Path(path), json_files.encode(known))

    def read(self) -> list[Row]:
        """Returns all rows in the order in which they were written; what is no row is passed over."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        rows = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.append(row)
            elif line:
                logging.warning("%s:%d is not a whole row and is passed over", self.path, number)
        return rows


def latest(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Returns the row that counts for each sweep and key: the first that is done, else the last that failed."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        row_key = (row["sweep"], row["key"])
        if row_key not in found or found[row_key]["status"] != DONE:
            found[row_key] = row
    return found


def _finite(value: Any) -> Any:
    """The value with numbers that JSON lacks as None."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
