"""One writer at a time: an output folder is held by one run, all its processes together, for as long as it lasts.

On a file system it is a lock of the system on a file in the folder, which ends with its holder, however that ends: a
run that was killed is followed by the next one at once. On one that several machines share it holds as far as its locks
do (NFS from version 4 on, most cluster file systems).

An object store has no locks. There the holder writes a mark again and again; who finds one that changes is refused, and
who finds one that stays as it is for `_STALE_SECONDS` takes over. Two that begin within the same second or two may both
go on; whoever lost sees it at its next mark, and stops.
"""

import contextlib
import functools
import itertools
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from etils import epath
from filelock import FileLock, Timeout

from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.errors import CheckpointError, ConfigError

FILE = ".writer"
_MARK_SECONDS = 10.0
_STALE_SECONDS = 25.0

_Run = TypeVar("_Run", bound=Callable[..., Any])


def holding_folder(argument: str, setting: str) -> Callable[[_Run], _Run]:
    """Has a function hold the folder that one of its keyword arguments names while it runs.

    Args:
      argument: Name of the argument.
      setting: What users know it by.
    """

    def decorate(run: _Run) -> _Run:
        @functools.wraps(run)
        def held(*args: Any, **kwargs: Any) -> Any:
            with holding(kwargs[argument], setting):
                return run(*args, **kwargs)

        return held  # pyright: ignore[reportReturnType]

    return decorate


@contextlib.contextmanager
def holding(folder: epath.PathLike, setting: str, part: str = "") -> Iterator[None]:
    """Holds an output folder, or a part of it, inside the block; makes it if it is not there.

    Process 0 holds it for all processes of a run; where it is refused, it ends and the others with it.

    Args:
      folder: The folder; local or gs://.
      setting: What users know it by, such as MODEL_DIR.
      part: What of the folder is held, where others may write other parts.

    Raises:
      ConfigError: If somebody else holds it, or nothing can be written there.
    """
    if jax.process_index() != 0:
        yield
        return
    folder = paths.absolute(folder)
    file = folder / f"{FILE}{f'-{part}' if part else ''}"
    hold = _marked if paths.in_object_store(folder) else _locked
    with hold(file, setting):
        json_files.sweep(folder, part)
        yield


@contextlib.contextmanager
def _locked(file: epath.Path, setting: str) -> Iterator[None]:
    """Holds a file by a lock of the system."""
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    # The same object again in one process would be let in again.
    lock = FileLock(file, is_singleton=False, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise _refusal(file, setting, _read(file)) from None
    try:
        file.write_bytes(_describe_self())
        yield
    finally:
        # Under the lock: who waits for it sees that the file is another one, and does not take the old one for it.
        file.unlink(missing_ok=True)
        lock.release()
        # A run that was refused for its settings leaves nothing.
        for folder in made:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


@contextlib.contextmanager
def _marked(file: epath.Path, setting: str) -> Iterator[None]:
    """Holds a file in an object store by writing it again and again."""
    began, first = time.monotonic(), _read(file)
    # A process of this machine can be asked for; any other has to be watched.
    is_dead = first.get("host") == socket.gethostname() and not _is_alive(first.get("process"))
    while first and not is_dead and time.monotonic() - began < _STALE_SECONDS:
        time.sleep(_MARK_SECONDS / 5)
        found = _read(file)
        if found and found != first:
            raise _refusal(file, setting, found)
    own, stop = str(uuid.uuid4()), threading.Event()
    json_files.write_atomically(file, _describe_self(own, 0))
    time.sleep(_MARK_SECONDS / 5)
    if _read(file).get("mark") != own:
        raise _refusal(file, setting, _read(file))

    def keep_marking() -> None:
        for number in itertools.count(1):
            if stop.wait(_MARK_SECONDS):
                return
            if _read(file).get("mark", own) != own:
                print(
                    f"{file.parent} is in another run's hands now; this one ends", file=sys.stderr
                )
                os._exit(2)
            json_files.write_atomically(file, _describe_self(own, number))

    thread = threading.Thread(target=keep_marking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)


def _describe_self(mark: str = "", number: int = 0) -> bytes:
    """Who holds a folder; in an object store with a mark of its own, and how often it was written."""
    return json_files.encode(
        {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "command": " ".join(sys.argv)[:200],
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "mark": mark,
            "number": number,
        }
    )


def _read(file: epath.Path) -> dict[str, Any]:
    """Who holds a folder; empty if nobody says."""
    try:
        return json_files.read(file, expected="who holds the folder", fix="")
    except CheckpointError:
        return {}


def _is_alive(process: Any) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(int(process), 0)
    except (OSError, TypeError, ValueError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True


def _refusal(file: epath.Path, setting: str, holder: dict[str, Any]) -> ConfigError:
    """The error for a folder in other hands."""
    host, process = holder.get("host", "unknown host"), holder.get("process", "unknown")
    return ConfigError(
        f"{setting} {file.parent} is in the hands of another run",
        got=f"process {process} on {host} since {holder.get('since', '?')}: {holder.get('command', '?')}",
        expected="one writer at a time",
        fix=f"wait for it, or end it (`kill {process}` on {host}: it saves first) and start again, which takes over;"
        f" or choose another {setting}",
    )
