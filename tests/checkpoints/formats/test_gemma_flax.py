"""T5Gemma as DeepMind's Flax code saves it: every array arrives, in parts too, and what is missing is named."""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface_config
from prompt_tuning.checkpoints.formats.gemma_flax import GemmaFlaxSource
from prompt_tuning.checkpoints.load import load_params
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.source import embedding_scale
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5gemma.config import T5GemmaConfig
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from tests.models.t5gemma.tiny import random_params, tiny_t5gemma

ATTENTIONS = {
    "attention": "attn",
    "self_attention": "attn",
    "encoder_decoder_attention": "cross_attn",
}


def _config(num_kv_heads: int) -> T5GemmaConfig:
    """A tiny model with what no shape tells as released ones have it; the decoder is narrower."""
    fields: dict[str, Any] = {"window": 4096, "query_scalar": 8, "attention_softcap": 50.0}
    encoder = dataclasses.replace(
        tiny_t5gemma().encoder, **fields, num_kv_heads=num_kv_heads, window_ahead=4095
    )
    decoder = dataclasses.replace(encoder, window_ahead=0, emb_dim=24, num_layers=1)
    return tiny_t5gemma(encoder=encoder, decoder=decoder, logits_softcap=30.0)


def _as_there(config: T5GemmaConfig, params: dict, *, turned: bool) -> dict[str, np.ndarray]:
    """Parameters by the names of DeepMind's module."""
    there: dict[str, np.ndarray] = {
        "encoder/embedder/input_embedding": params["token_embedder/embedding"],
        "decoder/embedder/input_embedding": params["decoder_embedder/embedding"],
    }
    for stack in ("encoder", "decoder"):
        there[f"{stack}/final_norm/scale"] = params[f"{stack}/{stack}_norm/scale"]
    for path, x in params.items():
        if not (found := re.match(r"(\w+)/layers_(\d+)/(\w+)/(\w+)(/kernel)?", path)):
            continue
        stack, number, module, name, _ = found.groups()
        layer, sizes = f"{stack}/layer_{number}", getattr(config, stack)
        split = lambda y, sizes=sizes: np.moveaxis(  # noqa: E731
            y.reshape(len(y), -1, sizes.head_dim), 1, 0
        )
        if name == "scale":
            norm = module.removesuffix("_layer_norm").replace("self_", "").replace("mlp", "ffw")
            there[f"{layer}/{norm}_norm/scale"] = x
        elif name == "out":
            shape = (sizes.num_heads, sizes.head_dim, -1)
            there[f"{layer}/{ATTENTIONS[module]}/attn_vec_einsum/w"] = x.reshape(shape)
        elif name == "query":
            below = path.removesuffix("query/kernel")
            parts = [split(params[f"{below}{part}/kernel"]) for part in ("query", "key", "value")]
            at = f"{layer}/{ATTENTIONS[module]}"
            if sizes.num_kv_heads == sizes.num_heads and "encoder" not in module:
                there[f"{at}/qkv_einsum/w"] = np.stack(parts)
            else:
                there |= {f"{at}/q_einsum/w": parts[0], f"{at}/kv_einsum/w": np.stack(parts[1:])}
        elif name == "wi_0":
            pair = np.stack([x, params[path.replace("wi_0", "wi_1")]])
            there[f"{layer}/mlp/gating_einsum"] = np.swapaxes(pair, 1, 2) if turned else pair
        elif name == "wo":
            there[f"{layer}/mlp/linear"] = x
    return there


def _write(path: pathlib.Path, named: dict[str, np.ndarray], *, is_flat: bool) -> pathlib.Path:
    """Saves a tree of these names, or one level of them below `transformer` as older Gemmas are stored."""
    stored: dict[str, Any] = tree.unflatten(named)
    if is_flat:
        stored = {}
        for name, x in named.items():
            above, leaf = (name, "w") if "/mlp/" in name else name.rsplit("/", 1)
            stored.setdefault(f"transformer/{above}", {})[leaf] = x
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, stored)
    return path


@pytest.mark.parametrize(("is_flat", "num_kv_heads"), [(False, 4), (True, 2)])
def test_every_array_arrives_whole_and_in_parts(tmp_path, is_flat, num_kv_heads):
    config = _config(num_kv_heads)
    expected = random_params(config)
    there = _as_there(config, expected, turned=not is_flat)
    source = open_source(_write(tmp_path / "t5gemma", there, is_flat=is_flat))
    assert isinstance(source, GemmaFlaxSource) and source.settings is not None
    huggingface_config.check_settings(source.settings, config, path=tmp_path)
    assert embedding_scale(source) == 32**0.5
    shapes = EncoderDecoderModel(T5Gemma(config), None, None).param_shapes
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    loaded = load_params(source, shapes, dict.fromkeys(shapes, where), model_shapes=shapes)
    assert set(loaded) == set(expected)
    for path, x in expected.items():
        np.testing.assert_array_equal(loaded[path], x, err_msg=path)
        part = tuple(slice(size // 4, size // 2) for size in x.shape)
        np.testing.assert_array_equal(source.read(path, part), x[part], err_msg=path)


@pytest.mark.parametrize("missing", ["decoder/layer_0/mlp/linear", "encoder/final_norm/scale"])
def test_an_array_that_is_missing_or_not_known_is_named(tmp_path, missing):
    config = _config(2)
    there = _as_there(config, random_params(config), turned=False)
    extra = {**there, "encoder/layer_0/attn/_query_norm/scale": np.ones(8, np.float32)}
    with pytest.raises(CheckpointError, match="encoder/layer_0/attn/_query_norm/scale.*T5Gemma"):
        open_source(_write(tmp_path / "extra", extra, is_flat=False))
    del there[missing]
    with pytest.raises(CheckpointError, match=f"no {missing}"):
        open_source(_write(tmp_path / "less", there, is_flat=False))
