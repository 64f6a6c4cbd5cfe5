"""Which prompts are in the table."""

import numpy as np
import pytest

from prompt_tuning.commands.serve.engine.residents import Residents
from prompt_tuning.run.many_prompts import TunedSet

A, B, C, D = (TunedSet(np.zeros((1, 1), np.float32), {}, {}) for _ in range(4))


def test_the_least_recently_used_makes_room_but_not_within_a_batch(monkeypatch):
    rows = {}
    residents = Residents(3, rows.__setitem__)
    assert residents.place([A, B, A, C]) == [0, 1, 0, 2] and residents.swaps == 3
    assert residents.place([A]) == [0] and residents.swaps == 3
    # B is the oldest, but wanted.
    assert residents.place([D, B]) == [2, 1]
    assert rows[0] is A and rows[1] is B and rows[2] is D
    assert (residents.swaps, residents.evictions, len(residents)) == (4, 1, 3)
    # What could not be written leaves its row free, and the other rows whose they are.
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(residents, "_write", lambda row, tuned: 1 / 0)
        residents.place([C])
    assert residents.place([C, D, B]) == [0, 2, 1] and rows[0] is C
    residents.clear()
    assert residents.place([C]) == [0] and len(residents) == 1
