"""How long it takes from the start of the process to the end of the first step, phase by phase."""

import time


class StartupTimes:
    """A clock that gives the time since the phase before to each phase that ends.

    Attributes:
      seconds: Phase -> its seconds, in order. Phases of one name add up.
    """

    def __init__(self):
        """Starts the clock."""
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def end(self, phase: str) -> None:
        """Ends a phase; the next one begins."""
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now


_of_process: StartupTimes | None = None


def begin() -> StartupTimes:
    """Returns the clock of the process, for the command line to start first of all."""
    global _of_process
    _of_process = StartupTimes()
    return _of_process


def take() -> StartupTimes:
    """Returns the clock of the process to the first run that asks, and a new one to every later run."""
    global _of_process
    times, _of_process = _of_process or StartupTimes(), None
    return times
