"""A disk that fails: what Python makes, opens and renames files with, and an error among it."""

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """Fails at the n-th thing asked of it below a folder: to make, to open for writing, to rename; and to read.

    Args:
      patch: Called as `setattr`, for as long as it is to fail.
      folder: What lies below it is on the disk.
      number: The system's number of the error.
      at: How many things are done before.
      reads: Whether to open for reading counts too.

    Attributes:
      asked: How many things were asked.
    """

    def __init__(
        self,
        patch: Callable[[Any, str, Any], None],
        folder: os.PathLike | str,
        number: int,
        at: int,
        *,
        reads: bool = False,
    ):
        self._folder, self._number, self._at = str(folder), number, at
        self.asked = 0
        real_open, real_mkdir, real_replace, real_os_open = open, os.mkdir, os.replace, os.open

        def fake_open(file, mode="r", *args, **kwargs):
            if reads or any(letter in mode for letter in "wax+"):
                self.ask(file)
            return real_open(file, mode, *args, **kwargs)

        def fake_os_open(file, flags, *args, **kwargs):
            if reads or flags & _WRITES:
                self.ask(file)
            return real_os_open(file, flags, *args, **kwargs)

        def fake_mkdir(path, *args, **kwargs):
            self.ask(path)
            return real_mkdir(path, *args, **kwargs)

        def fake_replace(old, new, *args, **kwargs):
            self.ask(new)
            return real_replace(old, new, *args, **kwargs)

        patch(builtins, "open", fake_open)
        patch(io, "open", fake_open)
        patch(os, "open", fake_os_open)
        patch(os, "mkdir", fake_mkdir)
        patch(os, "replace", fake_replace)
        patch(os, "rename", fake_replace)

    def ask(self, path: Any) -> None:
        """Fails if it is time to."""
        if isinstance(path, int) or not os.path.abspath(os.fsdecode(path)).startswith(self._folder):
            return
        self.asked += 1
        if self.asked == self._at + 1:
            raise OSError(self._number, os.strerror(self._number), str(path))
