"""An engine over a tiny model with random weights, and what `infer` answers with the same prompts."""

import dataclasses
import functools
import threading
from typing import Any

import jax
import numpy as np

from prompt_tuning import tree
from prompt_tuning.commands.serve.engine import Engine
from prompt_tuning.commands.serve.requests import Event, Finished, Generate, Score, Scored, Token
from prompt_tuning.commands.serve.settings import EngineSettings
from prompt_tuning.data import inference_examples
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run import many_prompts
from prompt_tuning.run.inference import Inference
from prompt_tuning.run.many_prompts import TunedSet
from tests.helpers import tiny_config

SETTINGS = EngineSettings(
    slots=3,
    rows=(1, 2),
    input_lengths=(6, 12),
    output_length=12,
    resident_prompts=3,
    prompt_length=7,
    queue=64,
)
LENGTHS = {"inputs": 12, "targets": 12}


@functools.cache
def one_device() -> PjitPartitioner:
    return PjitPartitioner().on(jax.devices()[:1])


@functools.cache
def model_of(**config: Any) -> EncoderDecoderModel:
    return EncoderDecoderModel(T5(tiny_config(**config)), None, None)


@functools.cache
def random_params(model: EncoderDecoderModel) -> Any:
    """Random weights with a head that often ends answers, so that these differ in length."""
    flat = tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    head = flat["decoder/logits_dense/kernel"]
    flat["decoder/logits_dense/kernel"] = head.at[:, 1].multiply(4.0)
    return tree.unflatten(flat)


def prompt_of(seed: int) -> TunedSet:
    """A prompt of one of several lengths."""
    rng = np.random.default_rng(seed)
    array = rng.normal(0, 5, (1 + seed % SETTINGS.prompt_length, 32)).astype(np.float32)
    return TunedSet(array, {}, {})


def make_engine(
    model: EncoderDecoderModel,
    params: Any,
    *,
    partitioner: PjitPartitioner | None = None,
    **settings: Any,
) -> Engine:
    sizes = dataclasses.replace(SETTINGS, **settings)
    own = many_prompts.own(model, tree.flatten(params), ())
    return Engine(model, params, partitioner or one_device(), sizes, own, "float32")


@dataclasses.dataclass
class Answer:
    """The events of a request, and whether they have ended."""

    events: list[Event] = dataclasses.field(default_factory=list)
    done: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __call__(self, event: Event) -> None:
        assert not self.done.is_set(), "nothing comes after the end"
        self.events.append(event)
        if isinstance(event, Finished | Scored):
            self.done.set()

    def wait(self) -> "Answer":
        assert self.done.wait(60)
        return self

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if isinstance(event, Token)]

    @property
    def reason(self) -> str:
        (end,) = [event for event in self.events if isinstance(event, Finished)]
        return end.reason

    @property
    def scores(self) -> list[float]:
        (end,) = self.events
        assert isinstance(end, Scored)
        return [total for total, _ in end.targets]


def ask(engine: Engine, work: Generate | Score) -> Answer:
    answer = Answer()
    engine.submit(work, answer)
    return answer


class Offline:
    """What `infer --prompts` answers."""

    def __init__(self, model: EncoderDecoderModel, params: Any, sets: dict[Any, TunedSet]):
        self._numbers = {name: number for number, name in enumerate(sets)}
        made = many_prompts.make_table(list(sets.values()))
        self._params = {**params, table.TABLE: made}
        self._inference = Inference(model, one_device(), 8)

    def _features(self, name: Any, ids: Any, target: Any = ()) -> dict[str, Any]:
        features = inference_examples.model_features(ids, target, LENGTHS)
        return many_prompts.with_prompt(features, self._numbers[name])

    def generate(self, works: list[Generate]) -> list[tuple[list[int], str]]:
        """Tokens in front of the end, and why there are no more, of requests for as many as there may be."""
        rows = list(enumerate(self._features(work.prompt, work.ids) for work in works))
        answers = []
        for _, ids in self._inference.predict(self._params, rows):
            has_end = 1 in ids
            answers.append(
                (ids[: ids.index(1)] if has_end else ids, "stop" if has_end else "length")
            )
        return answers

    def score(self, works: list[Score]) -> list[list[float]]:
        rows = [
            self._features(work.prompt, work.ids, target)
            for work in works
            for target in work.targets
        ]
        scores = iter(self._inference.score(self._params, enumerate(rows)))
        return [[next(scores)[1] for _ in work.targets] for work in works]
