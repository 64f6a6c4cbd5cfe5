"""Prompts that depend on the task or the example, alone: what they are made of, and what is refused."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.prompt_files.write import write_prompt
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.models import masks
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.alone import prompt_alone
from prompt_tuning.models.methods.attempt import Attempt
from prompt_tuning.models.methods.mpt import MPT
from prompt_tuning.models.methods.multitask_prompt import MultitaskPrompt
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import is_added
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import tiny_config

TASKS = ("a", "b", "c")
P, H = 3, 4
RNG = np.random.default_rng(0)
OWN = RNG.normal(size=(P, H)).astype(np.float32)
EMBEDDED = RNG.normal(size=(5, 6, H)).astype(np.float32)
NOTHING: Any = None
TASK = np.array([2, 0, 1, 1, 2], np.int32)


def _numbers(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def _model(method, *, length=6):
    prompt = PromptConfig(length=length) if length else None
    config = tiny_config(num_encoder_layers=1, num_decoder_layers=1)
    return EncoderDecoderModel(T5(config, prompt, method), None, None)


@pytest.mark.parametrize(("combination", "size", "by_hand"), [
    ("add", P * H, lambda s, t: s + t.reshape(P, H)),
    ("concat", 2 * H, lambda s, t: np.concatenate([s, t.reshape(2, H)])),
    ("concat_features", P, lambda s, t: np.concatenate([s, t.reshape(P, 1)], axis=1)),
    ("project", H * 3 + H, lambda s, t: s @ t[: H * 3].reshape(H, 3).T + t[H * 3 :]),
])  # fmt: skip
def test_shared_and_own_parts_are_put_together_in_four_ways(combination, size, by_hand):
    is_narrow = combination in ("concat_features", "project")
    settings: dict[str, Any] = {"shared_features": 3, "shared_length": P} if is_narrow else {}
    settings |= {"task_length": 2} if combination == "concat" else {}
    method = MultitaskPrompt(tasks=TASKS, combination=combination, **settings)
    shared, of_tasks = OWN[:, :3] if is_narrow else OWN, _numbers(len(TASKS), size)
    added = {"task_prompts": of_tasks, **({"shared_prompt": shared} if is_narrow else {})}
    got = prompt_alone(method, added, None if is_narrow else OWN, EMBEDDED, task=TASK)
    expected = np.stack([by_hand(shared, of_tasks[number]) for number in TASK])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)
    assert got.shape[1] == method.prompt_length(0 if is_narrow else P)


def test_every_task_of_mpt_starts_at_the_shared_prompt_and_ranks_differ():
    model = _model(MPT(tasks=TASKS, rank=2))
    params = jax.jit(model.init)(jax.random.key(0))["encoder"]
    added = {name: params[name] for name in ("task_columns", "task_rows")}
    own = params["prompt"]["prompt"]["prompt"]
    embedded = np.zeros((3, 1, 32), np.float32)
    assert model.method is not None
    got = prompt_alone(model.method, added, own, embedded, task=np.arange(3))
    np.testing.assert_array_equal(got, np.stack([own] * 3))
    drawn = np.asarray(added["task_rows"])
    assert (drawn[:, 0] == 1).all() and np.abs(drawn[:, 1]).min() > 0


@pytest.fixture
def sources(tmp_path):
    prompts = _numbers(2, P, H)
    paths = [str(tmp_path / f"{number}.npy") for number in range(2)]
    for path, prompt in zip(paths, prompts, strict=True):
        np.save(path, prompt)
    return tuple(paths), prompts


def test_attempt_weighs_prompts_by_the_tokens_and_by_no_padding(sources):
    paths, prompts = sources
    added = {"attempt_down": _numbers(H, 2), "attempt_up": _numbers(2, H)}
    added |= {"attempt_norm_scale": _numbers(H), "attempt_norm_bias": _numbers(H)}
    is_token = np.arange(6) < np.array([[6], [2], [4], [1], [0]])
    method = Attempt(sources=paths, temperature=2.0, bottleneck=2)
    got = prompt_alone(method, added, OWN, EMBEDDED, is_token=is_token)

    def by_hand(tokens, keys):
        x = tokens.max(axis=0) @ added["attempt_down"]
        x = (x / (1 + np.exp(-x))) @ added["attempt_up"]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        x = x * added["attempt_norm_scale"] + added["attempt_norm_bias"]
        weights = np.exp(keys.max(axis=1) @ x / 2.0)
        return np.einsum("s,sph->ph", weights / weights.sum(), keys)

    mixed = np.concatenate([prompts, OWN[None]])
    rows = [
        row[real] if real.any() else np.zeros((1, H))
        for row, real in zip(EMBEDDED, is_token, strict=True)
    ]
    np.testing.assert_allclose(
        got, [by_hand(row, mixed) + OWN for row in rows], rtol=1e-5, atol=1e-6
    )
    # Cut, as a batch of short rows is.
    cut = prompt_alone(method, added, OWN, EMBEDDED[1:, :4], is_token=is_token[1:, :4])
    np.testing.assert_array_equal(cut, got[1:])
    alone = prompt_alone(method, added, None, EMBEDDED, is_token=is_token)
    np.testing.assert_allclose(alone, [by_hand(row, prompts) for row in rows], rtol=1e-5, atol=1e-6)
    equal = prompt_alone(Attempt(sources=paths, bottleneck=None), {}, OWN, EMBEDDED)
    np.testing.assert_allclose(equal, mixed.mean(axis=0) + OWN, rtol=1e-6)
    # What a run records of sources are their numbers, wherever they lie.
    described = method.describe()
    assert paths[0] not in str(described) and described["temperature"] == 2.0
    assert Attempt(sources=paths[::-1]).describe()["sources"] == described["sources"][::-1]
    # As many rows as stand in front.
    assert [method.prompt_length(n) for n in (0, len(OWN))] == [prompts.shape[1], len(OWN)]


def test_a_source_of_attempt_is_all_that_stood_in_front(tmp_path):
    path = tmp_path / "shared.npy"
    write_prompt(path, OWN, {"method": {"name": "MPT"}}, file_format="npy")
    with pytest.raises(CheckpointError, match="SOURCE_PROMPTS .* of methods.MPT.*--task=NAME"):
        Attempt(sources=(str(path),)).describe()


def test_counts_of_t5_base(tmp_path):
    np.save(tmp_path / "source.npy", np.zeros((100, 768), np.float32))
    attempt = Attempt(sources=(str(tmp_path / "source.npy"),))
    for method, expected in ((attempt, 231_936), (MPT(tasks=("one",)), 77_668)):
        config = tiny_config(emb_dim=768, num_encoder_layers=1, num_decoder_layers=1)
        model = EncoderDecoderModel(T5(config, PromptConfig(length=100), method), None, None)
        shapes = {path: x.shape for path, x in model.param_shapes.items() if is_added(path)}
        assert sum(map(math.prod, shapes.values())) == expected


def test_a_prompt_sees_what_it_is_said_to_see_and_tokens_see_all():
    mask = masks.key_mask(np.array([[True] * 4 + [False]]))
    everything = np.asarray(mask)[0, 0, 0]
    for sees, first, second in (
        (("prompt", "input"), [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]),
        (("causal", "input"), [1, 0, 1, 1, 0], [1, 1, 1, 1, 0]),
        (("prompt",), [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]),
        ((), [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]),
    ):
        got = np.asarray(masks.with_prompt_visibility(mask, 2, sees))[0, 0]
        np.testing.assert_array_equal(got[:2], np.array([first, second], bool))
        assert (got[2:] == everything).all()
    assert MultitaskPrompt(tasks=TASKS).prompt_sees is None
    assert MultitaskPrompt(tasks=TASKS, sees=("causal", "input")).prompt_sees is not None


def test_what_does_not_fit_is_refused_by_name_before_anything_loads(sources):
    paths, _ = sources
    for make, text in (
        (lambda: MPT(), r"methods.MPT.tasks are no tasks.*got \(\).*METHOD_TASKS"),
        (lambda: MPT(tasks=("a", ("b", "a"))), r"got \('a', \('b', 'a'\)\)"),
        (
            lambda: MultitaskPrompt(tasks=TASKS, combination="sum"),
            "combination is unknown: got 'sum'",
        ),
        (
            lambda: MultitaskPrompt(tasks=TASKS, task_length=2),
            "task_length does not belong to .*'add'",
        ),
        (
            lambda: MultitaskPrompt(tasks=TASKS, combination="concat_features"),
            "shared_features does not belong to combination = 'concat_features': got None",
        ),
        (lambda: MultitaskPrompt(tasks=TASKS, sees=("all",)), "sees is unknown: got 'all'"),
        (lambda: MultitaskPrompt(tasks=TASKS, sees=NOTHING), "sees is no list of texts: got None"),
        (lambda: Attempt(sources=NOTHING), "sources is no list of texts: got None"),
        (lambda: Attempt(), r"none are named: got \(\).*SOURCE_PROMPTS"),
        (lambda: Attempt(sources=paths, temperature=0), r"temperature is out of range: got 0"),
    ):
        with pytest.raises(ConfigError, match=text):
            make()
    narrow = {"combination": "project", "shared_features": 32, "shared_length": 6}
    for method, length, error, text in (
        (MPT(tasks=TASKS), 0, ConfigError, "methods.MPT changes the model's prompt, and .* none"),
        (MultitaskPrompt(tasks=TASKS, **narrow), 0, ConfigError, "shared_features = 32 of 32"),
        (Attempt(sources=paths), 6, CheckpointError, r"cannot be mixed with.*got \[3, 4\]"),
    ):
        with pytest.raises(error, match=text):
            _ = _model(method, length=length).param_shapes
    with pytest.raises(ConfigError, match="the batch does not say which: got None"):
        prompt_alone(MultitaskPrompt(tasks=TASKS), {"task_prompts": _numbers(3, 12)}, OWN, EMBEDDED)
