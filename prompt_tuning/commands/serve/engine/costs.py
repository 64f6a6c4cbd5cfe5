"""How long each compiled program takes here, and so how many rows go together."""

import time
from collections.abc import Callable, Hashable
from typing import Any

import jax

# Unit: seconds.
_MEASURED = 1.0
_MOST_RUNS = 3


class Costs:
    """Seconds of programs that are compiled for several numbers of rows, measured where they run.

    Cores that one row keeps busy have little use for a batch: eight rows take nearly eight times as long, and two of
    them in the program for eight several times as long as they have to. Where one row leaves most of a device idle,
    eight take little more. So it is measured.
    """

    def __init__(self) -> None:
        """Begins without figures."""
        self._secs: dict[Hashable, dict[int, float]] = {}

    def measure(self, program: Hashable, rows: int, run: Callable[[], Any]) -> None:
        """Runs a program, which may compile it, and then for its figure: the least of up to three, or of a second.

        Args:
          program: What `best` calls it.
          rows: For how many it is compiled.
          run: Returns what is to be waited for.
        """
        jax.block_until_ready(run())
        runs: list[float] = []
        while len(runs) < _MOST_RUNS and sum(runs) < _MEASURED:
            begin = time.perf_counter()
            jax.block_until_ready(run())
            runs.append(time.perf_counter() - begin)
        self._secs.setdefault(program, {})[rows] = min(runs)

    def secs(self, program: Hashable, rows: int) -> float:
        """Returns what one run takes. Unit: seconds."""
        return self._secs[program][rows]

    def best(self, program: Hashable, waiting: int) -> int:
        """Returns for how many rows to run a program, of which some are waiting, so that each takes least."""
        secs = self._secs[program]
        return min(secs, key=lambda rows: secs[rows] / min(rows, waiting))
