"""The engine's answers are those of `infer`, whatever shares a batch, while prompts come and go."""

import itertools
import threading

import numpy as np
import pytest

from prompt_tuning.commands.serve.requests import Generate, Score
from tests.commands.serve.tiny_engine import (
    Offline,
    ask,
    make_engine,
    model_of,
    prompt_of,
    random_params,
)

NAMES = [f"prompt{number}" for number in range(6)]


def random_work(count, seed=0):
    """Requests of all kinds, each with one of the prompts or with none."""
    rng = np.random.default_rng(seed)
    works = []
    for number in range(count):
        name = [None, *NAMES][rng.integers(len(NAMES) + 1)]
        ids = tuple(rng.integers(2, 256, rng.integers(1, 13)).tolist())
        if number % 4 == 3:
            sizes = rng.integers(1, 13, rng.integers(1, 5))
            targets = tuple(tuple(rng.integers(1, 256, size).tolist()) for size in sizes)
            works.append(Score(name, ids, targets))
        else:
            works.append(Generate(name, ids, 12, logprobs=number % 3))
    return works


@pytest.fixture(scope="module")
def engine():
    model = model_of()
    made = make_engine(model, random_params(model))
    for number, name in enumerate(NAMES):
        made.add(name, name, prompt_of(number))
    made.warm()
    yield made
    made.close()


@pytest.fixture(scope="module")
def offline(engine):
    sets = {name: prompt_of(number) for number, name in enumerate(NAMES)}
    none = engine._own
    return Offline(engine.model, engine.params, {**sets, None: none})


def compilations(engine):
    """How many programs there are of each kind."""
    programs = engine._programs
    return [
        f._cache_size()
        for f in (programs._admit, programs._advance, programs._put, programs._score)
    ]


def test_mixed_requests_are_answered_as_infer_does_while_prompts_come_and_go(engine, offline):
    works, stop, before = random_work(40), threading.Event(), compilations(engine)

    def come_and_go():
        for number in itertools.count():
            engine.add(f"other{number % 3}", "other", prompt_of(100 + number))
            engine.add(NAMES[0], NAMES[0], prompt_of(0))
            engine.unload(f"other{number % 3}")
            if stop.wait(0.001):
                break

    thread = threading.Thread(target=come_and_go)
    thread.start()
    answers = [ask(engine, work) for work in works]
    answers = {work: answer.wait() for work, answer in zip(works, answers, strict=True)}
    stop.set()
    thread.join()
    generate = [work for work in works if isinstance(work, Generate)]
    expected = offline.generate(generate)
    assert [(answers[work].ids, answers[work].reason) for work in generate] == expected
    assert len({len(ids) for ids, _ in expected}) > 3
    score = [work for work in works if isinstance(work, Score)]
    for work, scores in zip(score, offline.score(score), strict=True):
        np.testing.assert_allclose(answers[work].scores, scores, rtol=1e-4, atol=1e-4)
    assert compilations(engine) == before
    assert engine.stats()["prompt_evictions"] > 3
