"""The reference model: its parameters, its batch and the numbers that T5X and the authors' code computed with them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import GOLDEN, tiny_config

FEATURES = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")


@dataclasses.dataclass(frozen=True)
class Reference:
    """Inputs and outputs of the reference model; `params` has the prompt, `frozen` has not."""

    frozen: dict[str, np.ndarray]
    prompt: np.ndarray
    batch: dict[str, np.ndarray]
    forward: dict[str, np.ndarray]
    forward_bf16: dict[str, np.ndarray]

    @property
    def params(self) -> dict[str, np.ndarray]:
        return {**self.frozen, PROMPT_PATH: self.prompt}

    @property
    def tokens(self) -> tuple[np.ndarray, ...]:
        return tuple(self.batch[name] for name in FEATURES)

    @property
    def is_target(self) -> np.ndarray:
        return self.batch["decoder_target_tokens"] > 0

    @property
    def is_token(self) -> np.ndarray:
        return self.batch["encoder_input_tokens"] > 0


@pytest.fixture(scope="session")
def reference() -> Reference:
    load = lambda name: dict(np.load(GOLDEN / name))  # noqa: E731
    return Reference(
        load("params.npz"),
        np.load(GOLDEN / "prompt.npy"),
        load("batch.npz"),
        load("forward.npz"),
        load("forward_bf16.npz"),
    )


def make_model(prompt_length: int | None = 6, **config) -> T5:
    prompt = None if prompt_length is None else PromptConfig(prompt_length)
    return T5(tiny_config(**{"dropout_rate": 0.0, **config}), prompt)


@functools.cache
def _compiled(config: T5Config, prompt: PromptConfig | None, method: str):
    """One compiled function per model, so that tests share it."""
    model = T5(config, prompt)

    def call(flat, tokens, kwargs):
        variables = {"params": tree.unflatten(flat)}
        return model.apply(variables, *tokens, enable_dropout=False, method=method, **kwargs)

    return jax.jit(call)


def logits_of(model: T5, flat: dict, tokens, **kwargs) -> np.ndarray:
    """Returns the logits [B, T, V] without dropout, computed under jit."""
    return np.asarray(
        _compiled(model.config, model.prompt, "__call__")(flat, tuple(tokens), kwargs)
    )


def encode(model: T5, flat: dict, tokens, **kwargs) -> np.ndarray:
    """Returns the encoder's output [B, S, H] without dropout, computed under jit."""
    return np.asarray(_compiled(model.config, model.prompt, "encode")(flat, (tokens,), kwargs))


def param_shapes(
    config: T5Config, prompt: PromptConfig | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    ids = np.ones((1, 1), np.int32)
    model = T5(config, prompt)
    init = lambda rng: model.init({"params": rng}, ids, ids, ids, enable_dropout=False)  # noqa: E731
    return tree.flatten(jax.eval_shape(init, jax.random.key(0))["params"])


def max_difference(a, b) -> float:
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    assert a.shape == b.shape and a.size > 0
    return float(np.abs(a - b).max())
