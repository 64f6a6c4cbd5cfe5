"""How many rows go together is what costs each of them least."""

import itertools

import pytest

from prompt_tuning.commands.serve.engine import costs


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a program says so."""
    now = [0.0]
    monkeypatch.setattr(costs.time, "perf_counter", lambda: now[0])

    def takes(*secs):
        left = itertools.chain(secs, itertools.repeat(secs[-1]))

        def run():
            now[0] += next(left)
            return ()

        return run

    return takes


def test_as_many_rows_go_together_as_make_each_cheapest(clock):
    made = costs.Costs()
    for program, one, eight in [("core", 0.010, 0.060), ("accelerator", 0.010, 0.011)]:
        made.measure(program, 1, clock(one))
        made.measure(program, 8, clock(eight))
    core, accelerator = ([made.best(p, n) for n in range(1, 10)] for p in ("core", "accelerator"))
    assert core == [1] * 6 + [8] * 3
    assert accelerator == [1] + [8] * 8


def test_neither_compiling_nor_a_pause_is_a_cost(clock):
    made = costs.Costs()
    made.measure("program", 1, clock(30.0, 0.3, 0.2, 0.4))
    assert made.secs("program", 1) == pytest.approx(0.2)
