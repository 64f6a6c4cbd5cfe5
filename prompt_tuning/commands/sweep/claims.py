"""Claims: which cell is in whose hands. A lock on a file a cell, which ends with its owner."""

import os
import pathlib

from filelock import FileLock, Timeout

FOLDER = "claims"


class Claims:
    """The cells that this process has in its hands.

    The system opens the locks of a process that ends, however it ends, and a file server those of a machine that is
    gone. No clock is asked, so a machine that sleeps keeps its cells.

    Args:
      directory: Folder of the sweep, on a file system that locks files.
    """

    def __init__(self, directory: str | os.PathLike):
        self._folder = pathlib.Path(directory) / FOLDER
        self._held: dict[str, FileLock] = {}

    def take(self, key: str) -> bool:
        """Takes a cell; returns whether that worked, which it does not while anybody holds it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # The file stays when the lock is gone: who removed it could not tell whether another has it open to lock it.
        lock = FileLock(self._folder / f"{key}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        self._held[key] = lock
        return True

    def release(self, key: str) -> None:
        """Gives a cell of this process back."""
        self._held.pop(key).release()

    def is_free(self, key: str) -> bool:
        """Returns whether nobody holds a cell; to be asked inside `Table.locked`, for it is taken for a moment."""
        is_free = self.take(key)
        if is_free:
            self.release(key)
        return is_free
