"""Writes tiny models as Hugging Face saves them, with safetensors alone; names are spelled out here once more."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    **{"model_type": "t5", "vocab_size": 10, "d_model": 6, "d_kv": 2, "d_ff": 5},
    **{"num_layers": 2, "num_decoder_layers": 1, "num_heads": 4},
    **{"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
ATTENTION = {"q": (8, 6), "k": (8, 6), "v": (8, 6), "o": (6, 8)}
MLP = {"wi_0": (5, 6), "wi_1": (5, 6), "wo": (6, 5)}


def make_tensors(dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Returns the tensors of `CONFIG`, each with values of its own."""
    shapes: dict[str, tuple[int, ...]] = {"shared.weight": (10, 6), "lm_head.weight": (10, 6)}
    blocks = [("encoder", 0), ("encoder", 1), ("decoder", 0)]
    for stack, i in blocks:
        names = ["SelfAttention", "DenseReluDense"]
        if stack == "decoder":
            names.insert(1, "EncDecAttention")
        for j, module in enumerate(names):
            prefix = f"{stack}.block.{i}.layer.{j}"
            shapes[f"{prefix}.layer_norm.weight"] = (6,)
            for letter, shape in (MLP if module == "DenseReluDense" else ATTENTION).items():
                shapes[f"{prefix}.{module}.{letter}.weight"] = shape
        shapes[f"{stack}.final_layer_norm.weight"] = (6,)
        if i == 0:
            shapes[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (
                32,
                4,
            )
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def write_model(
    folder: pathlib.Path,
    tensors: Mapping[str, np.ndarray],
    *,
    num_shards: int = 0,
    **changes: Any,
) -> pathlib.Path:
    """Writes a model.

    Args:
      folder: Where to.
      tensors: By their names.
      num_shards: Files to spread them over; 0 is one file without an index.
      **changes: Fields of config.json that differ from `CONFIG`; None leaves one out.

    Returns:
      `folder`.
    """
    folder.mkdir(exist_ok=True)
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if not num_shards:
        save_file(dict(tensors), folder / "model.safetensors")
        return folder
    names = sorted(tensors)
    weight_map = {}
    for i in range(num_shards):
        file = f"model-{i + 1:05}-of-{num_shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[i::num_shards]}, folder / file)
        weight_map |= dict.fromkeys(names[i::num_shards], file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
