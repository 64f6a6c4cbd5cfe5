"""The notice that the machine is about to be taken away: SIGTERM, some 10 to 15 seconds ahead on spot capacity.

The run looks for it after every step and between the batches of an evaluation. It saves what is not saved, and ends
with `EXIT_CODE`, which launchers take to mean "start again". Until the first step there is nothing to save, and SIGTERM
ends the process at once.
"""

import itertools
import signal
import threading
from typing import Any

# What shells report of a process that SIGTERM ended.
EXIT_CODE = 128 + signal.SIGTERM

# JAX compares the processes by this number, which must never fall while they live.
_COUNT = itertools.count(1)


class Preempted(SystemExit):
    """The run was told to stop, and its state is saved; ends the process with `EXIT_CODE` unless it is caught."""

    def __init__(self):
        """Names the exit code."""
        super().__init__(EXIT_CODE)


class Notice:
    """Whether this run has been told to stop.

    One process notes the signal itself. Several ask JAX's preemption service, which has them all answer yes at the same
    question, whichever of them was told.
    """

    def __init__(self):
        """Listens to nothing yet."""
        self._received = False
        self._previous: Any = None

    def listen(self) -> None:
        """Notes SIGTERM from now on instead of dying of it. Several processes have done so since they joined."""
        # Python lets only the main thread choose what a signal does.
        if not self._is_shared() and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._receive)

    def received(self) -> bool:
        """Returns whether to stop now; every process asks equally often, and gets the same answer."""
        if self._is_shared() and not self._received:
            from jax.experimental import multihost_utils

            self._received = multihost_utils.reached_preemption_sync_point(next(_COUNT))
        return self._received

    def stop_if_received(self) -> None:
        """Raises Preempted if the run has been told to stop; for moments at which everything is saved."""
        if self.received():
            raise Preempted

    def close(self) -> None:
        """Lets SIGTERM do again what it did before."""
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)
            self._previous = None

    def _is_shared(self) -> bool:
        """Whether there are other processes."""
        # Imported here, so that launchers have the exit code at once.
        import jax

        return jax.process_count() > 1

    def _receive(self, signum: int, frame: Any) -> None:
        """Python's signal handler."""
        del signum, frame
        self._received = True
