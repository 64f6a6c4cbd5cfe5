"""The clock of a start: phases add up, and only the first run of a process counts what came before it."""

import pytest

from prompt_tuning.run import startup_times


@pytest.fixture
def now(monkeypatch):
    """A clock that is read in order: 1, 2, 4, 8, ..."""
    ticks = iter(2.0**n for n in range(20))
    monkeypatch.setattr(startup_times.time, "perf_counter", lambda: next(ticks))


def test_phases_are_in_order_and_add_up(now):
    times = startup_times.begin()
    for phase in ("imports", "joining", "imports"):
        times.end(phase)
    assert times.seconds == {"imports": 1.0 + 4.0, "joining": 2.0}
    assert list(times.seconds) == ["imports", "joining"]


def test_the_second_run_of_a_process_starts_anew(now):
    times = startup_times.begin()
    times.end("imports")
    assert startup_times.take() is times
    later = startup_times.take()
    assert later is not times and later.seconds == {}
