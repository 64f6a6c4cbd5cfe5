"""Tiny T5Gemmas, of both generations, and their folders as Hugging Face saves them."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface, huggingface_t5gemma
from prompt_tuning.models.t5gemma.config import StackSizes, T5GemmaConfig
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma

_SIZES: dict[str, Any] = {
    **{"num_layers": 2, "emb_dim": 32, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8},
    **{"mlp_dim": 48, "query_scalar": 6, "attention_softcap": 5.0},
}


def tiny_t5gemma(*, merges_attention: bool = False, **fields: Any) -> T5GemmaConfig:
    """Returns an architecture of two layers a stack, whose windows are 4 positions; float32."""
    window: dict[str, Any] = {"window": 4, "window_ahead": 3}
    if merges_attention:
        window = {"window": 2, "window_ahead": 2}
    sizes = dict(_SIZES)
    if merges_attention:
        sizes |= {"attention_softcap": None, "rope_theta": 1e6, "rope_factor": 4.0}
    return T5GemmaConfig(
        **{
            **{"vocab_size": 256, "merges_attention": merges_attention, "dtype": "float32"},
            **{"logits_softcap": 6.0, "eoi_token": 200 if merges_attention else None},
            **{"encoder": StackSizes(**sizes, **window), "decoder": StackSizes(**sizes, window=4)},
            **fields,
        }
    )


def random_params(config: T5GemmaConfig) -> dict[str, np.ndarray]:
    """Returns weights by path, norms and all different from where they start."""
    ids = np.ones((1, 1), np.int32)
    module = T5Gemma(config)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), ids, ids, ids, enable_dropout=False)
    )
    rng = np.random.default_rng(0)
    return {
        path: (rng.standard_normal(x.shape) * 0.3).astype(np.float32)
        for path, x in sorted(tree.flatten(shapes["params"]).items())
    }


def config_json(config: T5GemmaConfig) -> dict[str, Any]:
    """Returns what Hugging Face calls an architecture, as transformers 5 writes it."""
    kinds = {"sliding": "sliding_attention", "full": "full_attention"}
    parts = {}
    for name in ("encoder", "decoder"):
        stack: StackSizes = getattr(config, name)
        ropes = {
            "full_attention": {"rope_theta": stack.rope_theta, "rope_type": "default"},
            "sliding_attention": {"rope_theta": stack.rope_local_theta, "rope_type": "default"},
        }
        if stack.rope_factor != 1:
            ropes["full_attention"] |= {"rope_type": "linear", "factor": stack.rope_factor}
        parts[name] = {
            **{"vocab_size": config.vocab_size, "hidden_size": stack.emb_dim},
            **{"intermediate_size": stack.mlp_dim, "num_hidden_layers": stack.num_layers},
            **{"num_attention_heads": stack.num_heads, "head_dim": stack.head_dim},
            **{"num_key_value_heads": stack.num_kv_heads, "rms_norm_eps": 1e-6},
            **{
                "query_pre_attn_scalar": stack.query_scalar,
                "sliding_window": config.decoder.window,
            },
            **{"attn_logit_softcapping": stack.attention_softcap, "pad_token_id": 0},
            **{
                "final_logit_softcapping": config.logits_softcap,
                "eos_token_id": 1,
                "bos_token_id": 2,
            },
            **{"layer_types": [kinds[kind] for kind in stack.layer_types]},
            "rope_parameters": ropes if config.merges_attention else ropes["full_attention"],
        }
    if not config.merges_attention:
        return {"model_type": "t5gemma", **parts}
    encoder = {"text_config": parts["encoder"]}
    return {
        **parts,
        "model_type": "t5gemma2",
        "encoder": encoder,
        "eoi_token_index": config.eoi_token,
    }


def write_t5gemma(
    folder: pathlib.Path, config: T5GemmaConfig, **tensors: np.ndarray
) -> pathlib.Path:
    """Writes `random_params` as a Hugging Face folder, with further tensors, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    described = config_json(config)
    names = dict(huggingface_t5gemma.names(huggingface_t5gemma.settings(described), {}))
    stored = {
        names[path]: np.ascontiguousarray(x.T) if huggingface.is_transposed(path) else x
        for path, x in random_params(config).items()
    }
    save_file({**stored, **tensors}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(described))
    return folder
