"""The engine over other models, over several devices, and loaded as a command loads it."""

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.commands.serve.engine.build import build
from prompt_tuning.commands.serve.engine.requests import Generate
from prompt_tuning.data.vocabularies import SentencePieceVocabulary
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.params.names import is_added
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run import many_prompts
from prompt_tuning.run.many_prompts import TunedSet
from tests import tiny_run
from tests.commands.serve.engine.tiny_engine import (
    SETTINGS,
    Offline,
    ask,
    check_answers,
    make_engine,
    one_device,
    prompt_of,
    random_params,
    random_work,
)
from tests.helpers import tiny_config
from tests.models.t5gemma import tiny


def _tuned(model, params, seed):
    """A set of all that is added to a model, near what it has."""
    rng = np.random.default_rng(seed)
    flat = {
        path: np.asarray(x) + rng.normal(0, 0.5, x.shape).astype(np.float32)
        for path, x in tree.flatten(params).items()
        if is_added(path)
    }
    return many_prompts.own(model, flat, ())


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_ia3_and_eight_devices(scan_layers):
    """The layers of both stacks are one scanned layer, as an accelerator keeps them, or apart."""
    config = tiny_config(scan_layers=scan_layers)
    model = EncoderDecoderModel(T5(config, PromptConfig(3), IA3()), None, None)
    params = random_params(model)
    partitioner = PjitPartitioner(num_partitions=2)
    shardings = partitioner.param_shardings(model.param_axes, model.param_shapes)
    placed = jax.device_put(params, tree.unflatten(shardings))
    sets = {name: _tuned(model, params, seed) for seed, name in enumerate(("a", "b", "c", "d"))}
    engine = make_engine(model, placed, partitioner, input_lengths=(12,))
    try:
        for name, tuned in sets.items():
            engine.add(name, name, tuned)
        engine.warm()
        works = random_work([None, *sets], 24)
        answers = {work: ask(engine, work) for work in works}
        check_answers(Offline(model, params, {**sets, None: engine._own}), answers)
        assert engine.stats()["slots"] == 4
        keys = jax.tree.leaves(engine._programs._slots.keys)[0]
        assert keys.sharding.num_devices == 8 and not keys.sharding.is_fully_replicated
    finally:
        engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("merges_attention", [False, True])
def test_t5gemma(merges_attention):
    config = tiny.tiny_t5gemma(merges_attention=merges_attention)
    model = EncoderDecoderModel(T5Gemma(config), None, None)
    params = tree.unflatten(tiny.random_params(config))
    engine = make_engine(model, params, input_lengths=(12,))
    sets = {f"prompt{number}": prompt_of(number) for number in range(4)}
    for name, tuned in sets.items():
        engine.add(name, name, tuned)
    engine.warm()
    works = random_work([None, *sets], 24)
    answers = {work: ask(engine, work) for work in works}
    check_answers(Offline(model, params, {**sets, None: engine._own}), answers)
    running = [ask(engine, works[0]) for _ in range(20)]
    engine.close()
    assert {answer.reason for answer in running} <= {"cancelled", "length", "stop"}
    assert running[-1].reason == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("scan_layers", [False, True])
def test_a_checkpoint_and_its_prompts(tmp_path, scan_layers):
    """Of a model with a prompt, whose checkpoint has none, no prompt is none; on a CPU its layers come apart."""
    inputs = tiny_run.make_inputs(tmp_path)
    vocabulary = SentencePieceVocabulary(str(inputs.vocabulary))
    module = T5(tiny_run.run_config(scan_layers=scan_layers), PromptConfig(3))
    model = EncoderDecoderModel(module, vocabulary, vocabulary)
    tuned = prompt_of(4)
    assert tuned.prompt is not None
    np.save(tmp_path / "a.npy", tuned.prompt)
    restore = RestoreCheckpointConfig(path=str(inputs.checkpoint), dtype="float32")
    prompts = {"a": str(tmp_path / "a.npy")}
    engine = build(model, one_device(), restore, SETTINGS, prompts)
    assert not engine.model.module.scan_layers
    engine.load("b", prompts["a"])
    engine.warm()
    none = TunedSet(np.zeros((0, 32), np.float32), {}, {})
    offline = Offline(engine.model, engine.params, {None: none, "a": tuned, "b": tuned})
    works = random_work(["a", "b"], 24)
    check_answers(offline, {work: ask(engine, work) for work in works})
    works = [Generate(None, ids, 12) for ids in ((5, 6, 7), (9,), (11, 12))]
    answers = [ask(engine, work) for work in works]
    assert [(answer.ids, answer.reason) for answer in answers] == offline.generate(works)
    engine.close()
