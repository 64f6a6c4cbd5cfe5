"""Which prompts are in which row of the table on the device: the least recently used makes room."""

import collections
from collections.abc import Callable, Sequence

from prompt_tuning.run.many_prompts import TunedSet


class Residents:
    """The rows of a table.

    Attributes:
      swaps: Sets that were written so far.
      evictions: Sets that made room so far.
    """

    def __init__(self, capacity: int, write: Callable[[int, TunedSet], None]):
        """Begins with an empty table of `capacity` rows; `write` puts a set into one."""
        self.capacity = capacity
        self.swaps = self.evictions = 0
        self._write = write
        # By identity: a name may come to mean another set while answers are given with the first. Oldest use first.
        self._rows: collections.OrderedDict[int, tuple[TunedSet, int]] = collections.OrderedDict()
        self.clear()

    def __len__(self) -> int:
        """Returns how many rows are taken."""
        return len(self._rows)

    def clear(self) -> None:
        """Forgets all of them: the table is empty."""
        self._rows.clear()
        # The next one to take is the last.
        self._free = [*reversed(range(self.capacity))]

    def place(self, sets: Sequence[TunedSet]) -> list[int]:
        """Returns the row of each set, with all of them in the table at once; at most `capacity` are different."""
        wanted = {id(tuned): tuned for tuned in sets}
        assert len(wanted) <= self.capacity
        for key in self._rows.keys() & wanted.keys():
            self._rows.move_to_end(key)
        for key, tuned in wanted.items():
            if key in self._rows:
                continue
            if not self._free:
                # Those that are wanted are behind it.
                _, (_, row) = self._rows.popitem(last=False)
                self._free.append(row)
                self.evictions += 1
            self._write(self._free[-1], tuned)
            # Not before it is written: what fails leaves the row free.
            self._rows[key] = (tuned, self._free.pop())
            self.swaps += 1
        return [self._rows[id(tuned)][1] for tuned in sets]
