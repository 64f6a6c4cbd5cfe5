"""DePT in the model: what it adds, to which positions, packed or cut, and what it refuses."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.data.packing import PROMPT_POSITIONS, pack
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.dept import DePT
from prompt_tuning.models.methods.method import Tokens
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH, is_added
from prompt_tuning.prompts.config import PromptConfig
from tests.helpers import tiny_config
from tests.models.conftest import max_difference

RANK, LENGTH = 3, 26


def _model(method: DePT | None) -> EncoderDecoderModel:
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    module = T5(tiny_config(dropout_rate=0.0, **layers), PromptConfig(6), method)
    return EncoderDecoderModel(module, None, None)


def _tuned(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"encoder/dept_a": (LENGTH, RANK), "encoder/dept_b": (RANK, 32)}
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def _logits(model: EncoderDecoderModel, flat: dict, batch: dict) -> np.ndarray:
    flat = {path: x for path, x in flat.items() if path in model.param_shapes}
    return np.asarray(jax.jit(model.apply)(tree.unflatten(flat), batch))


def test_t5_base_has_76_800_parameters_of_it():
    config = tiny_config(emb_dim=768, scan_layers=True)
    model = EncoderDecoderModel(T5(config, PromptConfig(40), DePT()), None, None)
    shapes = {p: x.shape for p, x in model.param_shapes.items() if is_added(p)}
    assert sum(map(math.prod, shapes.values())) == 76_800
    assert shapes == {
        PROMPT_PATH: (40, 768),
        "encoder/dept_a": (256, 45),
        "encoder/dept_b": (45, 768),
    }


def test_it_starts_where_nothing_is_added(reference):
    model = _model(DePT(rank=RANK, max_length=LENGTH))
    fresh = tree.flatten(jax.jit(model.init)(jax.random.key(0)))
    a, b = np.asarray(fresh["encoder/dept_a"]), np.asarray(fresh["encoder/dept_b"])
    assert not b.any() and np.abs(a).max() <= RANK**-0.5 and np.abs(a).max() > 0.9 * RANK**-0.5
    own = {path: fresh[path] for path in ("encoder/dept_a", "encoder/dept_b")}
    logits = _logits(model, {**reference.params, **own}, reference.batch)
    np.testing.assert_array_equal(logits, _logits(_model(None), reference.params, reference.batch))


def test_padding_gets_rows_that_nothing_reads_and_packed_examples_their_own(reference):
    model = _model(DePT(rank=RANK, alpha=2.0, max_length=LENGTH))
    flat, batch = {**reference.params, **_tuned()}, dict(reference.batch)
    batch = {name: batch[name] for name in batch if name.split("_")[0] in ("encoder", "decoder")}
    expected = _logits(model, flat, batch)
    rows, width = batch["encoder_input_tokens"].shape
    assert max_difference(expected, _logits(_model(None), reference.params, batch)) > 0.01
    # Cut, and wider than it was: A's other rows are not read.
    wide = {n: np.pad(x, ((0, 0), (0, 2))) if n[0] == "e" else x for n, x in batch.items()}
    real = reference.is_target
    assert max_difference(_logits(model, flat, wide)[real], expected[real]) <= 1e-5

    batch["decoder_loss_weights"] = reference.is_target.astype(np.int32)
    packed = pack(
        {name: np.asarray(x, np.int32) for name, x in batch.items()},
        prompt_length=6,
        width=2 * (6 + width),
        target_width=4 * batch["decoder_target_tokens"].shape[1],
        row_counts=range(1, rows + 1),
    )
    assert len(packed["encoder_input_tokens"]) < rows
    places = Tokens(model.module, packed["encoder_segment_ids"], packed[PROMPT_POSITIONS])
    is_token = packed["encoder_input_tokens"] > 0
    np.testing.assert_array_equal(
        np.asarray(places.positions())[is_token], packed["encoder_positions"][is_token] - 6
    )
    got, targets = _logits(model, flat, packed), packed["decoder_target_tokens"]
    by_targets = {
        tuple(t[t > 0]): x[t > 0]
        for t, x in zip(batch["decoder_target_tokens"], expected, strict=True)
    }
    compared = 0
    for row, segments in enumerate(packed["decoder_segment_ids"]):
        for segment in range(1, segments.max() + 1):
            at = segments == segment
            assert max_difference(got[row, at], by_targets[tuple(targets[row, at])]) <= 1e-5
            compared += 1
    assert compared == len(by_targets)


def test_what_it_cannot_take_is_refused(reference):
    refused: list[dict[str, Any]] = [{"rank": 0}, {"alpha": 0}, {"max_length": 2.5}]
    for settings in refused:
        with pytest.raises(ConfigError, match=f"methods.DePT.{next(iter(settings))}"):
            DePT(**settings)
    width = reference.batch["encoder_input_tokens"].shape[1]
    model = _model(DePT(rank=RANK, max_length=width - 1))
    tuned = {**_tuned(), "encoder/dept_a": _tuned()["encoder/dept_a"][: width - 1]}
    with pytest.raises(ConfigError, match=f"bind methods.DePT.max_length = {width}"):
        _logits(model, {**reference.params, **tuned}, reference.batch)
