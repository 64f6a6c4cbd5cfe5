"""The table of a sweep: `results.jsonl`, a row a finished cell, to which several processes and hosts may append."""

import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from absl import logging
from etils import epath
from filelock import FileLock

from prompt_tuning.checkpoints import json_files
from prompt_tuning.commands.sweep.row_form import DONE, wrong_parts
from prompt_tuning.commands.sweep.sweep import Cell
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError

TABLE = "results.jsonl"
CELLS = "cells.json"
_LOCK = "results.lock"
_LOCK_POLL_SECONDS = 0.01
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
        # JSON has no NaN and no infinity: None stands for them.
        finite = json.loads(json.dumps(row), parse_constant=lambda name: None)
        text = json.dumps(content.sealed(finite)).encode() + b"\n"
        # Unbuffered, so that a reader, who takes no lock, sees all of the line or nothing.
        with open(self.path, "ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            # A writer was killed in the middle of a line: it stays a line of its own, which no reader takes.
            if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                text = b"\n" + text
            written = file.write(text)
            if written != len(text):
                raise OSError(f"{self.path}: {written} of {len(text)} bytes were written")
            os.fsync(file.fileno())

    def write_cells(self, cells: Sequence[Cell]) -> None:
        """Says which cells sweeps have, now that they are run with these settings; the report reads it.

        What the file says of other sweeps and scales stays.
        """
        path = self.directory / CELLS
        with self.locked():
            known = read_cells(path)
            # Settings that a sweep had before are forgotten; their rows stay in the table.
            for cell in cells:
                known.setdefault(cell.sweep, {})[cell.scale or ""] = {}
            for cell in cells:
                known[cell.sweep][cell.scale or ""][cell.key] = cell.label
            json_files.write_atomically(epath.Path(path), json_files.encode(known))

    def read(self) -> list[Row]:
        """Returns all rows in the order in which they were written; what is no row, or damaged, is passed over."""
        if not self.path.is_file():
            return []
        rows = []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for number, row in parse(text):
            wrong = wrong_parts(row)
            if wrong or row.get("key") is None:
                text = "%s:%d is not a whole row and is passed over (%s)"
                logging.warning(text, self.path, number, ", ".join(wrong or ["key"]))
            else:
                rows.append(row)
        return rows


def read_cells(path: pathlib.Path) -> dict[str, dict[str, dict[str, str]]]:
    """Returns sweep -> scale -> key -> label of `cells.json`; nothing where it is not there or damaged."""
    if not path.exists():
        return {}
    try:
        cells = json_files.read(epath.Path(path), expected="cells", fix="")
        labels = [keys for scales in cells.values() for keys in scales.values()]
        if not all(isinstance(label, str) for keys in labels for label in keys.values()):
            raise ValueError("a label that is no text")
        return cells
    except (CheckpointError, ValueError, AttributeError) as error:
        # The next start of each sweep writes its part again.
        logging.warning("%s is damaged and begun anew: %s", path, error)
        return {}


def parse(text: str) -> Iterator[tuple[int, Any]]:
    """Yields the number of each line that is not empty, from 1, and the JSON in it; None for one torn or damaged.

    A writer that was killed leaves a part of a line; the next one begins a new line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                yield number, content.unsealed(row) if isinstance(row, dict) else row
            except (ValueError, RecursionError):
                yield number, None


def row_key(row: Row) -> tuple[str, str]:
    """Returns what a row is found by, as `Cell.row_key`."""
    return row["sweep"], row["key"]


def latest(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """Returns the row that counts for each sweep and key: the first that is done, else the last that failed."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        counted = found.get(row_key(row))
        if counted is None or counted["status"] != DONE:
            found[row_key(row)] = row
    return found
