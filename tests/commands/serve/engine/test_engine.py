"""The engine's answers are those of `infer`, whatever shares a batch, while prompts come and go; and how they end."""

import dataclasses
import itertools
import threading
import time

import numpy as np
import pytest

from prompt_tuning.commands.serve import problems
from prompt_tuning.commands.serve.engine import requests
from prompt_tuning.commands.serve.engine.requests import Generate, Score
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.run.many_prompts import TunedSet
from tests import tiny_run
from tests.commands.serve.engine.tiny_engine import (
    SETTINGS,
    Answer,
    Offline,
    ask,
    check_answers,
    make_engine,
    prompt_of,
    random_params,
    random_work,
)

SETS = {f"prompt{number}": prompt_of(number) for number in range(6)}
FIVE = (5, 6, 7, 8, 9)


@pytest.fixture(scope="module")
def engine():
    model = EncoderDecoderModel(T5(tiny_run.run_config()), None, None)
    made = make_engine(model, random_params(model))
    with pytest.raises(requests.NotReady, match="The server is not ready yet"):
        made.submit(Generate(None, FIVE, 1), print)
    for name, tuned in SETS.items():
        made.add(name, name, tuned)
    made.warm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def offline(engine):
    return Offline(engine.model, engine.params, {**SETS, None: engine._own})


@pytest.fixture(scope="module")
def endless(engine, offline):
    """An input whose answer is as long as it may be."""
    works = [Generate("prompt1", (first, 9), SETTINGS.output_length) for first in range(2, 40)]
    lasting = [
        w
        for w, (_, reason) in zip(works, offline.generate(works), strict=True)
        if reason == "length"
    ]
    return lasting[0]


def compilations(engine):
    """How many programs there are of each kind."""
    programs = engine._programs
    jitted = (programs._admit, programs._advance, programs._put, programs._score)
    return [program._cache_size() for program in jitted]


def test_mixed_requests_are_answered_as_infer_does_while_prompts_come_and_go(engine, offline):
    stop, before = threading.Event(), compilations(engine)

    def come_and_go():
        for number in itertools.count():
            engine.add(f"other{number % 3}", "other", prompt_of(100 + number))
            engine.add("prompt0", "prompt0", SETS["prompt0"])
            engine.unload(f"other{number % 3}")
            if stop.wait(0.001):
                break

    thread = threading.Thread(target=come_and_go)
    thread.start()
    works = random_work([None, *SETS], 40)
    answers = [ask(engine, work) for work in works]
    check_answers(offline, dict(zip(works, answers, strict=True)))
    stop.set()
    thread.join()
    assert compilations(engine) == before
    assert engine.names()[-1] == "prompt0" and engine.tuned("prompt0") is SETS["prompt0"]
    stats = engine.stats()
    assert stats["prompt_evictions"] > 3 and stats["resident_prompts"] == SETTINGS.resident_prompts
    generated = [(w, a) for w, a in zip(works, answers, strict=True) if isinstance(w, Generate)]
    told = [
        (work.logprobs, t) for work, answer in generated if work.logprobs for t in answer.tokens
    ]
    for count, token in told:
        assert token.top[0] == (token.id, pytest.approx(token.logprob, abs=1e-5))
        assert len(token.top) == count
    assert len(told) > 20


def test_a_seed_draws_the_same_in_any_company(engine):
    drawn = Generate("prompt2", FIVE, SETTINGS.output_length, temperature=1.0, top_p=0.9, seed=3)
    alone = ask(engine, drawn).wait().ids
    others = [
        dataclasses.replace(drawn, seed=seed, prompt=name, temperature=seed / 4)
        for seed, name in enumerate([*SETS, None] * 2)
    ]
    answers = [ask(engine, work) for work in [*others[:7], drawn, *others[7:], drawn]]
    assert [answers[at].wait().ids for at in (7, -1)] == [alone, alone]
    assert len({tuple(answer.wait().ids) for answer in answers}) > 5


def test_requests_end_where_they_are_cancelled_or_late_and_too_many_are_refused(engine, endless):
    hold = threading.Event()
    held = Answer(hold)
    ticket = engine.submit(endless, held)
    assert held.came.wait(60)
    # The engine's thread is at the first token.
    late = ask(engine, dataclasses.replace(endless, deadline=time.monotonic()))
    gone = Answer()
    engine.submit(endless, gone).cancel()
    failing = engine.submit(endless, lambda event: 1 / 0)
    # Room for all that comes together, or for none of it.
    with pytest.raises(requests.QueueFull, match="got '3 before this one', expected room for 62"):
        engine.submit(endless, print, SETTINGS.queue - 2)
    waiting = [ask(engine, endless) for _ in range(SETTINGS.queue - 3)]
    with pytest.raises(requests.QueueFull, match="Too many requests wait: got '64 before"):
        engine.submit(endless, print)
    ticket.cancel()
    hold.set()
    assert [held.reason, late.reason, gone.reason] == ["cancelled", "deadline", "cancelled"]
    assert len(held.ids) < SETTINGS.output_length and late.ids == gone.ids == []
    assert {answer.reason for answer in waiting} == {"length"}
    assert len({tuple(answer.ids) for answer in waiting}) == 1
    assert failing.ended == "cancelled"
    # Slots are free again.
    assert ask(engine, endless).reason == "length" and engine.stats()["busy_slots"] == 0


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("admit", Generate),
        ("advance", Generate),
        ("score", Score),
        ("put_set", Generate),
        ("put_set", Score),
    ],
)
def test_a_batch_that_fails_is_answered_and_the_next_one_is_right(
    engine, offline, monkeypatch, program, kind
):
    original, failures = getattr(engine._programs, program), iter([RuntimeError("broken")])

    def fails_once(*args):
        for failure in failures:
            raise failure
        return original(*args)

    monkeypatch.setattr(engine._programs, program, fails_once)
    if program == "put_set":
        monkeypatch.setattr(engine._scheduler.residents, "_write", fails_once)
        engine.add("new", "new", prompt_of(50))
    name = "new" if program == "put_set" else None
    assert ask(engine, kind(name, FIVE, ((1,),) if kind is Score else 3)).reason == "error"
    works = random_work([None, *SETS], 16)
    check_answers(offline, {work: ask(engine, work) for work in works})


@pytest.mark.parametrize(
    ("work", "param", "text"),
    [
        (Generate("promt1", FIVE, 1), "model", "No prompt of this name is loaded: got 'promt1'"),
        (Generate(None, (5,) * 13, 1), "prompt", "The input is too long: got '13 tokens'"),
        (Generate(None, FIVE, 13), "max_tokens", "The answer is too long"),
        (Score(None, FIVE, ((1,), (2,) * 13)), "labels", "expected at most 12"),
    ],
)
def test_what_cannot_be_answered_is_refused(engine, work, param, text):
    with pytest.raises(requests.ServeError, match=text) as refused:
        engine.submit(work, print)
    assert problems.told(refused.value)[1]["error"]["param"] == param


def test_prompts_that_do_not_fit_are_refused(engine, tmp_path, monkeypatch):
    full = dataclasses.replace(SETTINGS, loaded_prompts=len(engine.names()))
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="Too many prompts are"):
        patch.setattr(engine, "settings", full)
        engine.add("prompt1", "prompt1", SETS["prompt1"])
        engine.add("more", "more", SETS["prompt1"])
    with pytest.raises(ConfigError, match=r"the prompt of long is longer .* got '8 positions'"):
        engine.add("long", "long", TunedSet(np.zeros((8, 32), np.float32), {}, {}))
    with pytest.raises(CheckpointError, match="not those that prompt file other was trained on"):
        engine.add(
            "other", "other", dataclasses.replace(SETS["prompt1"], info={"frozen_digest": "f"})
        )
    np.save(tmp_path / "wide.npy", np.zeros((2, 33), np.float32))
    with pytest.raises(CheckpointError, match="33"):
        engine.load("wide", str(tmp_path / "wide.npy"))
    assert {"long", "other", "wide", "more"}.isdisjoint(engine.names())
    with pytest.raises(requests.UnknownPrompt):
        engine.unload("wide")


@pytest.mark.parametrize("fields", [{"slots": 0}, {"rows": [8, 1]}, {"input_lengths": ()}])
def test_sizes_that_cannot_be_are_refused(fields):
    with pytest.raises(ConfigError, match=f"serve.Engine.{[*fields][0]}"):
        dataclasses.replace(SETTINGS, **fields)


def test_a_server_that_stops_answers_what_it_took(engine, endless):
    answers = [ask(engine, endless) for _ in range(8)]
    engine.drain()
    assert {answer.reason for answer in answers} == {"length"}
    assert not engine.is_ready
    with pytest.raises(requests.Draining, match="The server is about to stop"):
        engine.submit(endless, print)


def test_a_device_that_is_gone_ends_what_was_taken_and_the_engine(engine, endless, monkeypatch):
    monkeypatch.setattr(engine, "_is_draining", False)
    for name in ("advance", "reset"):
        monkeypatch.setattr(engine._programs, name, lambda *_: 1 / 0)
    with engine._changed:
        answers = [ask(engine, endless) for _ in range(8)]
    assert {answer.reason for answer in answers} == {"error"}
    engine.drain()
    assert not engine.is_ready
    with pytest.raises(requests.Draining):
        engine.submit(endless, print)
