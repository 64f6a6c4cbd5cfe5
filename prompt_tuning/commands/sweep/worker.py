"""A worker: takes cell after cell until none is left. Imports nothing heavy before its environment is set."""

import os
import pathlib
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

from prompt_tuning.commands.sweep import progress
from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.progress import Session

# As `compilation_cache` calls it, which imports JAX.
_COMPILED = "compilation_cache"
_PARENT_POLL_SECONDS = 0.5


def environment(place: Place) -> dict[str, str]:
    """Returns the variables of a worker, without those that the user has set.

    All workers share one folder of compiled programs, small ones too; those that share a GPU take its memory as they
    need it.
    """
    wanted = {
        "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(place.directory).absolute() / _COMPILED),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


def run_cells(session: Session, in_hand: Any = None) -> int:
    """Runs what is missing in this process, cell after cell, and returns how many cells it took.

    Args:
      session: What is to be done.
      in_hand: Its `value` is the key of the cell in work, as bytes, and empty between cells; None tells nobody.
    """
    from prompt_tuning.commands.sweep import cell as cells

    claims, in_hand = Claims(session.place.directory), in_hand or SimpleNamespace()
    count = 0
    while (cell := progress.take_next(session, claims)) is not None:
        in_hand.value = cell.key.encode()
        try:
            row = cells.run(cell, session.place)
            progress.record(session, cell, row)
            cells.discard_checkpoints(cell, session.place, row)
        finally:
            in_hand.value = b""
            claims.release(cell.key)
        count += 1
    return count


def main(session: Session, parent: int, in_hand: Any) -> None:
    """Runs a worker process.

    Args:
      session: What is to be done.
      parent: Process that started it; the worker ends when that one does.
      in_hand: See `run_cells`; memory that the parent shares, and reads when this process is gone.
    """
    # Before JAX is imported.
    os.environ.update(environment(session.place))
    log = pathlib.Path(session.place.directory) / "logs" / "workers.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for standard in (sys.stdout, sys.stderr):
        os.dup2(descriptor, standard.fileno())
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    run_cells(session, in_hand)


def _end_with_parent(parent: int) -> None:
    """Ends the process, and with it its claim, as soon as its parent is gone."""
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    # Python would wait for the cell.
    os._exit(1)
