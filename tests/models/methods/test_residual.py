"""The residual reparametrization: its formula, and that what it is folded into computes the same, bit for bit."""

from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files import folded
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.residual import Residual
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH, is_added, is_method
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import tiny_config

ROWS, HIDDEN = 6, 5
CASES = (
    Residual(hidden=HIDDEN),
    Residual(hidden=HIDDEN, activation="tanh", repeats=2),
    Residual(hidden=HIDDEN, activation="sigmoid", separate=True, layer_norm=False),
)


def _model(method: Residual | None, prompt: bool = True) -> EncoderDecoderModel:
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = tiny_config(dropout_rate=0.0, **layers)
    return EncoderDecoderModel(
        T5(config, PromptConfig(ROWS) if prompt else None, method), None, None
    )


def _by_hand(method: Residual, prompt: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """P + MLP(P), row by row in float64."""
    activations = {
        "relu": lambda x: x * (x > 0),
        "tanh": np.tanh,
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    }
    rows = []
    for i, row in enumerate(prompt.astype(np.float64)):
        w = {n: (x[i] if method.separate else x).astype(np.float64) for n, x in weights.items()}
        x = row
        for _ in range(method.repeats):
            x = activations[method.activation](x @ w["residual_down"] + w["residual_down_bias"])
            x = x @ w["residual_up"] + w["residual_up_bias"]
            if method.layer_norm:
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                x = x * w["residual_norm"] + w["residual_norm_bias"]
        rows.append(row + x)
    return np.stack(rows)


@pytest.mark.parametrize("method", CASES, ids=lambda m: f"{m.activation}{m.repeats}")
def test_it_computes_what_it_is_folded_into(reference, method):
    model = _model(method)
    shapes = {path: x.shape for path, x in model.param_shapes.items() if is_added(path)}
    rng = np.random.default_rng(0)
    added = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
    assert all(is_method(path) for path in added if path != PROMPT_PATH)
    assert len(added) == (7 if method.layer_norm else 5)
    info = {METHOD: method.describe(), "trainable_regex": [".*"], "step": 3}
    used, recorded = folded.as_used(added, info)
    assert list(used) == [PROMPT_PATH]
    assert recorded == {
        "step": 3,
        "trainable_regex": [".*/prompt/.*"],
        folded.FOLDED: method.describe(),
    }
    weights = {path.split("/")[-1]: x for path, x in added.items() if path != PROMPT_PATH}
    expected = _by_hand(method, added[PROMPT_PATH], weights)
    np.testing.assert_allclose(used[PROMPT_PATH], expected, rtol=1e-5, atol=1e-5)
    if method.repeats == 1:
        return
    frozen = {path: x for path, x in reference.frozen.items() if path in model.param_shapes}
    own, plain = (
        np.asarray(jax.jit(m.apply)(tree.unflatten({**frozen, **flat}), reference.batch))
        for m, flat in ((model, added), (_model(None), used))
    )
    np.testing.assert_array_equal(own, plain)


def test_what_it_does_not_train_is_left_as_it_is():
    arrays, info = {PROMPT_PATH: np.ones((2, 3))}, {METHOD: {"name": "IA3"}, "step": 1}
    assert folded.as_used(arrays, info) == (arrays, info)
    assert not folded.is_folded(None)


def test_settings_that_make_nothing_are_refused():
    with pytest.raises(ConfigError, match="bind PROMPT = @prompts.Prompt()"):
        _model(Residual(), prompt=False).param_shapes  # noqa: B018
    refused: list[dict[str, Any]] = [{"hidden": 0}, {"activation": "gelu"}, {"repeats": 0}]
    for settings in refused:
        with pytest.raises(ConfigError, match=f"methods.Residual.{next(iter(settings))}"):
            Residual(**settings)
