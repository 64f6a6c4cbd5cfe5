"""Claims: which cell is in whose hands. A file a cell, taken once, and released when its owner ends or falls silent."""

import dataclasses
import json
import os
import pathlib
import socket
import threading
import time

from prompt_tuning.commands.sweep.results import Table

FOLDER = "claims"
BEAT_SECONDS = 20.0
# Of an owner on another host: its clock and the file system's may differ by minutes.
SILENT_SECONDS = 900.0


@dataclasses.dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
      host: Its machine.
      pid: Its number there.
      born: When it started, as the system counts; None where the system does not say. Numbers are used again.
    """

    host: str
    pid: int
    born: str | None

    @property
    def is_local(self) -> bool:
        """Whether it is, or was, on this machine."""
        return self.host == socket.gethostname()

    def has_ended(self) -> bool:
        """Whether a process of this machine is there no more."""
        return _born(self.pid) != self.born if self.born else not _exists(self.pid)


def this_process() -> Owner:
    """Returns the process that asks."""
    return Owner(socket.gethostname(), os.getpid(), _born(os.getpid()))


class Claims:
    """The claims of a sweep's folder.

    Args:
      table: The table; its lock is held while claims change hands.
    """

    def __init__(self, table: Table):
        self._table = table
        self._directory = table.directory / FOLDER
        self._mine: dict[str, threading.Event] = {}

    def take_locked(self, key: str) -> bool:
        """Takes a cell inside `Table.locked`, also from an owner that is gone; returns whether that worked."""
        if self.owner(key) is not None:
            return False
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._path(key)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.write(descriptor, json.dumps(dataclasses.asdict(this_process())).encode())
        finally:
            os.close(descriptor)
        self._mine[key] = stop = threading.Event()
        threading.Thread(target=_beat, args=(path, stop), daemon=True).start()
        return True

    def release(self, key: str) -> None:
        """Gives a cell of this process back."""
        stop = self._mine.pop(key, None)
        if stop is not None:
            stop.set()
            # A machine that slept may have lost the cell to another.
            if self.owner(key) == this_process():
                self._path(key).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Gives back all that this process holds."""
        for key in list(self._mine):
            self.release(key)

    def owner(self, key: str) -> Owner | None:
        """Returns who holds a cell; None if nobody does who is still there."""
        path = self._path(key)
        try:
            owner = Owner(**json.loads(path.read_text()))
            silent = time.time() - path.stat().st_mtime
        except (FileNotFoundError, ValueError, TypeError):
            # An owner that died between opening and writing leaves an empty file.
            return None
        is_gone = owner.has_ended() if owner.is_local else silent > SILENT_SECONDS
        return None if is_gone else owner

    def left_by(self, pid: int) -> list[str]:
        """Returns the cells that a process of this host, which has ended, had in its hands."""
        found = []
        for path in self._directory.glob("*.json") if self._directory.is_dir() else ():
            try:
                owner = Owner(**json.loads(path.read_text()))
            except (FileNotFoundError, ValueError, TypeError):
                continue
            if owner.is_local and owner.pid == pid:
                found.append(path.stem)
        return found

    def _path(self, key: str) -> pathlib.Path:
        """The file of a cell."""
        return self._directory / f"{key}.json"


def _beat(path: pathlib.Path, stop: threading.Event) -> None:
    """Touches a claim until it is given back."""
    while not stop.wait(BEAT_SECONDS):
        try:
            os.utime(path)
        except FileNotFoundError:
            return


def _exists(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _born(pid: int) -> str | None:
    """When a process started, from Linux's /proc; None elsewhere, or if it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the program's name, which may hold blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
