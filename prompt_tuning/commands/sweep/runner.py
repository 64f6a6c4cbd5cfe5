"""Runs a sweep on this machine: several worker processes, each of which runs cell after cell."""

import glob
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prompt_tuning.commands.sweep import progress, worker
from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.progress import MISSING, Session
from prompt_tuning.commands.sweep.results import Row, Table, row_key
from prompt_tuning.commands.sweep.row_form import DONE, FAILED
from prompt_tuning.errors import ConfigError

# A cell whose worker has died so often is recorded as failed.
MAX_TRIES = 3
_POLL_SECONDS = 1.0
_GIB = 2**30
# What a worker takes for TensorFlow, JAX, the compiler and a small model.
_BYTES_PER_WORKER = 4 * _GIB
# A worker that is told to end saves a checkpoint first, for the next start to go on from.
_SECONDS_TO_SAVE = 60.0
_MAX_KEY_BYTES = 64


def default_jobs() -> int:
    """Returns how many workers suit this machine: one a core with four GiB of memory; one on a TPU."""
    # Only one process can hold the chips.
    if glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"):
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, memory // _BYTES_PER_WORKER))


def run(session: Session, jobs: int, report: Callable[[str], None] = print) -> None:
    """Runs all cells that are missing, and waits for those that other runners have in work.

    Args:
      session: What is to be done.
      jobs: Worker processes.
      report: Called with a line for each cell that is finished.

    Raises:
      ConfigError: If workers end again and again and no cell is finished meanwhile.
    """
    runner = _Runner(session, jobs, report)
    try:
        while runner.goes_on():
            time.sleep(_POLL_SECONDS)
    finally:
        runner.stop()


class _Runner:
    """The workers of one runner."""

    def __init__(self, session: Session, jobs: int, report: Callable[[str], None]):
        self._session, self._jobs = session, jobs
        self._table = Table(session.place.directory)
        self._claims = Claims(session.place.directory)
        self._progress = Reporter(session, report)
        # Process -> memory that it shares, with the key of the cell in its hands.
        self._workers: dict[Any, Any] = {}
        self._deaths: Counter[str] = Counter()
        self._fruitless_ends = 0
        self._num_rows = 0

    def goes_on(self) -> bool:
        """Looks after the workers once; returns whether anything is left to do or to wait for."""
        for process in [p for p in self._workers if not p.is_alive()]:
            self._look_into_end(process.exitcode, self._workers.pop(process).value.decode())
        rows = self._table.read()
        self._progress.show(rows)
        missing = [c for c, s in progress.states(self._session, rows) if s == MISSING]
        room = self._jobs - len(self._workers)
        # A network drive is asked for each lock, so only where the answer matters.
        if missing and room > 0:
            num_idle = sum(not in_hand.value for in_hand in self._workers.values())
            with self._table.locked():
                num_free = sum(map(self._claims.is_free, {cell.key for cell in missing}))
            for _ in range(min(room, num_free - num_idle)):
                self._start()
        return bool(missing or self._workers)

    def stop(self) -> None:
        """Tells all workers to save and end, and waits for them."""
        for process in self._workers:
            process.terminate()
        for process in self._workers:
            process.join(_SECONDS_TO_SAVE)
            process.kill()
            process.join()

    def _start(self) -> None:
        """Starts a worker."""
        # Threads do not survive a fork, and JAX and TensorFlow have some.
        context = multiprocessing.get_context("spawn")
        in_hand = context.RawArray("c", _MAX_KEY_BYTES)
        arguments = (self._session, os.getpid(), in_hand)
        process = context.Process(target=worker.main, args=arguments)
        process.start()
        self._workers[process] = in_hand

    def _look_into_end(self, exit_code: int, key: str) -> None:
        """Counts the death of a worker against the cell that it had in its hands."""
        if exit_code == 0:
            return
        # Without one it did not start, was told to end (SIGTERM) and saved, or could not write its row.
        if not key:
            before, self._num_rows = self._num_rows, len(self._table.read())
            self._fruitless_ends = 1 + self._fruitless_ends * (self._num_rows == before)
            if self._fruitless_ends >= MAX_TRIES:
                raise ConfigError(
                    "The sweep's workers end outside of cells",
                    got=f"exit code {exit_code}, and no cell finished by the last {MAX_TRIES} of them",
                    expected="workers that start, and a folder that can be written",
                    fix=f"see {self._session.place.directory}/logs/workers.log",
                )
        self._deaths[key] += 1
        if key and self._deaths[key] >= MAX_TRIES:
            from prompt_tuning.commands.sweep.cell import failed_row

            error = f"its worker ended {MAX_TRIES} times, with exit code {exit_code} (-9: killed, perhaps for memory)"
            # Sweeps share runs: a cell of each has the key.
            for cell in self._session.cells:
                if cell.key == key:
                    row = failed_row(cell, self._session.place, error)
                    progress.record(self._session, cell, row)


class Reporter:
    """Says which cells were finished since it last looked.

    Args:
      session: The session.
      report: Called with each line.
    """

    def __init__(self, session: Session, report: Callable[[str], None]):
        self._session, self._report = session, report
        self._num_seen = len(Table(session.place.directory).read())

    def show(self, rows: Sequence[Row]) -> None:
        """Reports the rows that are new."""
        cells = {cell.row_key for cell in self._session.cells}
        for number, row in enumerate(rows[self._num_seen :], self._num_seen + 1):
            if row_key(row) in cells:
                states = progress.states(self._session, rows[:number])
                finished = sum(state in (DONE, FAILED) for _, state in states)
                self._report(f"{finished} of {len(cells)}: {describe(row)}")
        self._num_seen = len(rows)


def describe(row: Row) -> str:
    """Returns a line about a row."""
    name = f"{row['sweep']} {row['cell']}"
    if row["status"] == FAILED:
        return f"{name} failed: {row['error']} (log: {row['log']})"
    score = "" if row["score"] is None else f" score {row['score']:.2f}"
    return f"{name}{score} ({row['seconds']:.0f} s)"
