"""What goes together, and how much of it in one turn, by what programs cost; what runs is only noted down."""

import types

import numpy as np
import pytest

from prompt_tuning.commands.serve.engine import scheduler
from prompt_tuning.commands.serve.engine.costs import Costs
from prompt_tuning.commands.serve.engine.open_requests import OpenGenerate, OpenScore, lay_out
from prompt_tuning.commands.serve.engine.programs import ENCODE
from prompt_tuning.commands.serve.engine.requests import Generate, Score
from prompt_tuning.models.config import SpecialIds
from prompt_tuning.run.many_prompts import TunedSet

SHORT, LONG, TARGETS = 64, 512, 16
PROMPT = TunedSet(np.zeros((1, 1), np.float32), {}, {})


class Noted:
    """Programs for 1 and 8 rows, which note what they were called with: (width, rows)."""

    slots, rows, capacity = 32, (1, 8), 4

    def __init__(self, secs_of_a_row, secs_of_eight):
        self.calls, self.costs = [], Costs()
        for kind in (ENCODE, TARGETS):
            for width in (SHORT, LONG):
                secs = {1: secs_of_a_row, 8: secs_of_eight}
                self.costs._secs[kind, width] = {n: s * width / SHORT for n, s in secs.items()}

    def put_set(self, row, tuned):
        pass

    def admit(self, width, rows, ids, into):
        self.calls.append((width, len(ids)))

    def score(self, lines):
        self.calls.append(("score", len(lines)))
        return np.zeros((len(lines), 1, TARGETS), np.float32)


CORE = (0.010, 0.080)
ACCELERATOR = (0.010, 0.011)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is put on."""
    now = types.SimpleNamespace(secs=0.0)
    monkeypatch.setattr(scheduler.time, "monotonic", lambda: now.secs)
    return now


def answers(*widths):
    work = Generate(None, (5,), 4)
    return [OpenGenerate(work, lambda _: None, PROMPT, width, lambda: None) for width in widths]


def scores(number, deliver=lambda _: None):
    work = Score(None, (5,), ((6,),))
    layout = lay_out(work.targets, 8, (TARGETS,))
    made = (
        OpenScore(work, deliver, PROMPT, SHORT, lambda: None, layout=layout) for _ in range(number)
    )
    return list(made)


def turn(programs, waiting):
    """What began in a turn, and the calls of programs."""
    scheduler.Scheduler(programs, SpecialIds()).begin(waiting)
    return [request for request in waiting if not request.is_waiting], programs.calls


@pytest.mark.parametrize(
    "costs, calls",
    [
        # Where a batch takes as long as its rows one by one, none is computed for nothing, or wider than it is.
        (CORE, [(LONG, 1), (SHORT, 1), (SHORT, 1), (SHORT, 1), (LONG, 1)]),
        # Where it takes as long as one of them, the first takes its like along, and short ones where rows are left.
        (ACCELERATOR, [(LONG, 5)]),
    ],
)
def test_what_goes_together_is_what_is_cheap(clock, costs, calls):
    waiting = answers(LONG, SHORT, SHORT, SHORT, LONG)
    began, made = turn(Noted(*costs), waiting)
    assert made == calls and began == waiting


def test_a_turn_leaves_what_would_keep_running_answers_waiting(clock):
    waiting = [*answers(*[SHORT] * 31), *scores(31)]
    began, calls = turn(Noted(*CORE), waiting)
    # A quarter of a second in all, of which scores take no more than a call of the decoder does.
    assert calls.count((SHORT, 1)) == 20 and calls.count(("score", 1)) == 5
    assert began == [*waiting[:20], *waiting[31:36]]


def test_a_turn_counts_what_no_program_was_measured_for(clock):
    programs, waiting = Noted(*ACCELERATOR), answers(*[SHORT] * 32)

    def put_set(row, tuned):
        clock.secs += 1

    programs.put_set = put_set
    began, calls = turn(programs, waiting)
    assert calls == [(SHORT, 8)] and began == waiting[:8]


def test_who_is_gone_is_not_scored(clock):
    def deliver(event):
        for request in waiting:
            request.cancel()

    waiting = scores(9, deliver)
    began, calls = turn(Noted(*CORE), waiting)
    assert calls == [("score", 1)] and began == waiting
    assert [request.ended for request in waiting] == ["stop"] + ["cancelled"] * 8
