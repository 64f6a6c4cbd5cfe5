"""An engine over a tiny model with random weights, and what `infer` answers with the same prompts."""

import dataclasses
import functools
import threading
from typing import Any

import jax
import numpy as np

from prompt_tuning import tree
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.engine.requests import (
    Event,
    Finished,
    Generate,
    Score,
    Scored,
    Token,
    Work,
)
from prompt_tuning.commands.serve.engine.settings import EngineSettings
from prompt_tuning.data import inference_examples
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run import many_prompts
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.many_prompts import TunedSet

SETTINGS = EngineSettings(
    slots=3,
    rows=(2,),
    input_lengths=(6, 12),
    output_length=12,
    resident_prompts=3,
    prompt_length=7,
    queue=64,
)
LENGTHS = {"inputs": SETTINGS.longest_input, "targets": SETTINGS.output_length}
EOS = 1


@functools.cache
def one_device() -> PjitPartitioner:
    return PjitPartitioner().on(jax.devices()[:1])


def random_params(model: EncoderDecoderModel) -> Any:
    """Random weights with a head that often ends answers, so that these differ in length."""
    flat = tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    head = "decoder/logits_dense/kernel"
    if head in flat:
        flat[head] = flat[head].at[:, EOS].multiply(4.0)
    return tree.unflatten(flat)


def prompt_of(seed: int, width: int = 32) -> TunedSet:
    """A prompt of one of several lengths."""
    rng = np.random.default_rng(seed)
    shape = (1 + seed % SETTINGS.prompt_length, width)
    return TunedSet(rng.normal(0, 5, shape).astype(np.float32), {}, {})


def make_engine(
    model: EncoderDecoderModel,
    params: Any,
    partitioner: PjitPartitioner | None = None,
    **settings: Any,
) -> Engine:
    sizes = dataclasses.replace(SETTINGS, **settings)
    own = many_prompts.own(model, tree.flatten(params), ())
    return Engine(model, params, partitioner or one_device(), sizes, own, "float32")


class Answer:
    """The events of a request; `hold` keeps the engine's thread at the first until it is set."""

    def __init__(self, hold: threading.Event | None = None):
        self.events: list[Event] = []
        self.came, self._done, self._hold = threading.Event(), threading.Event(), hold

    def __call__(self, event: Event) -> None:
        assert not self._done.is_set(), "nothing comes after the end"
        self.events.append(event)
        if isinstance(event, Finished | Scored):
            self._done.set()
        self.came.set()
        if self._hold is not None:
            assert self._hold.wait(20)

    def wait(self) -> "Answer":
        assert self._done.wait(60)
        return self

    @property
    def tokens(self) -> list[Token]:
        return [event for event in self.wait().events if isinstance(event, Token)]

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def reason(self) -> str:
        (end,) = (event for event in self.wait().events if isinstance(event, Finished))
        return end.reason

    @property
    def scores(self) -> list[float]:
        (end,) = self.wait().events
        assert isinstance(end, Scored)
        for total, tokens in end.targets:
            np.testing.assert_allclose(sum(tokens), total, rtol=1e-5)
        return [total for total, _ in end.targets]


def ask(engine: Engine, work: Work, hold: threading.Event | None = None) -> Answer:
    answer = Answer(hold)
    engine.submit(work, answer)
    return answer


class Offline:
    """What `infer --prompts` answers."""

    def __init__(self, model: EncoderDecoderModel, params: Any, sets: dict[Any, TunedSet]):
        self._numbers = {name: number for number, name in enumerate(sets)}
        self._params = {**params, table.TABLE: many_prompts.make_table(list(sets.values()))}
        self._inference = Inference(model, one_device(), 8)

    def _features(self, name: Any, ids: Any, target: Any = ()) -> dict[str, Any]:
        features = inference_examples.model_features(ids, target, LENGTHS)
        return many_prompts.with_prompt(features, self._numbers[name])

    def generate(self, works: list[Generate]) -> list[tuple[list[int], str]]:
        """Tokens in front of the end, and why there are no more, of requests for as many as there may be."""
        rows = [(i, self._features(work.prompt, work.ids)) for i, work in enumerate(works)]
        answers = []
        for _, ids in self._inference.predict(self._params, rows):
            ended = EOS in ids
            answers.append((ids[: ids.index(EOS)] if ended else ids, "stop" if ended else "length"))
        return answers

    def score(self, works: list[Score]) -> list[list[float]]:
        rows = [self._features(w.prompt, w.ids, target) for w in works for target in w.targets]
        scores = iter(self._inference.score(self._params, enumerate(rows)))
        return [[next(scores)[1] for _ in work.targets] for work in works]


def random_work(names: list[Any], count: int) -> list[Work]:
    """Requests of both kinds, each with one of the prompts."""
    rng, works = np.random.default_rng(0), []
    for number in range(count):
        name = names[rng.integers(len(names))]
        ids = tuple(rng.integers(2, 256, rng.integers(1, 13)).tolist())
        sizes = rng.integers(1, 13, rng.integers(1, 6))
        targets = tuple(tuple(rng.integers(1, 256, size).tolist()) for size in sizes)
        answer = Generate(name, ids, SETTINGS.output_length, logprobs=number % 3)
        works.append(Score(name, ids, targets) if number % 4 == 3 else answer)
    return works


def check_answers(offline: Offline, answers: dict[Work, Answer]) -> None:
    """Asserts that answers are those of `infer`: tokens equal, scores within 1e-4."""
    generate = [work for work in answers if isinstance(work, Generate)]
    expected = offline.generate(generate)
    assert [(answers[work].ids, answers[work].reason) for work in generate] == expected
    score = [work for work in answers if isinstance(work, Score)]
    for work, scores in zip(score, offline.score(score), strict=True):
        np.testing.assert_allclose(answers[work].scores, scores, rtol=1e-4, atol=1e-4)
    assert len(generate) > 8 and len(score) > 2
