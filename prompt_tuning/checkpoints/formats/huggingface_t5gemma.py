"""T5Gemma and T5Gemma 2 as Hugging Face saves them: settings and names.

| here (unscanned) | there |
|---|---|
| `token_embedder/embedding` | `model.encoder.embed_tokens.weight` |
| `decoder_embedder/embedding` (T5Gemma 1), the head too | `model.decoder.embed_tokens.weight` |
| `token_embedder/eoi_embedding` (T5Gemma 2) | `model.encoder.embed_tokens.eoi_embedding` |
| `encoder/layers_{i}/attention/query/kernel` | `model.encoder.layers.{i}.self_attn.q_proj.weight` |
| `encoder/layers_{i}/attention/query_norm/scale` (T5Gemma 2) | `model.encoder.layers.{i}.self_attn.q_norm.weight` |
| `decoder/layers_{i}/encoder_decoder_attention/out/kernel` (1) | `model.decoder.layers.{i}.cross_attn.o_proj.weight` |
| `encoder/layers_{i}/mlp/{wi_0, wi_1, wo}/kernel` | `model.encoder.layers.{i}.mlp.{gate, up, down}_proj.weight` |
| `encoder/layers_{i}/post_mlp_layer_norm/scale` | `model.encoder.layers.{i}.post_feedforward_layernorm.weight` |
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.checkpoints.formats.huggingface_config import unsupported
from prompt_tuning.params.names import DECODER_EMBEDDING, EMBEDDING, EOI_EMBEDDING

# `model_type` -> whether the decoder's two attentions are merged.
MERGES = {"t5gemma": False, "t5gemma2": True}
WHERE = (
    "accept Gemma's licence on the model's page, https://huggingface.co/google (T5Gemma's collections), and download"
    " its folder with `hf auth login` and `hf download google/MODEL --local-dir FOLDER`"
)
# The names of the head, which is tied to the decoder's table.
HEADS = ("lm_head.out_proj.weight",)
# What no text goes through.
UNUSED = ("model.encoder.vision_tower.", "model.encoder.multi_modal_projector.")
_TEXT = "text_model."
_LAYER_TYPES = {"sliding_attention": "sliding", "full_attention": "full"}
_MLP = {"wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
_LINEAR = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "o_proj"}
# Ids here -> there, and Gemma's own: transformers 4 and the first of 5 leave these out of a stack.
_IDS = {"pad": ("pad_token_id", 0), "eos": ("eos_token_id", 1), "start": ("bos_token_id", 2)}
# Of each generation, caps of the logits at the head and in attention, where they are left out.
_CAPS = {False: (30.0, 50.0), True: (None, None)}
# And bases of rotations in full and in sliding layers.
_THETAS = {False: (10_000.0, 10_000.0), True: (1_000_000.0, 10_000.0)}
# Fields that are fixed here -> the values that all have; None is a field that was left out.
_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "rms_norm_eps": (1e-6, None),
}
_unsupported = functools.partial(unsupported, family="T5Gemma")


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `T5GemmaConfig` that a `config.json` decides, as JSON values.

    Args:
      config: The parsed file.

    Raises:
      CheckpointError: If it has a value that T5Gemma here has not; the text names the field.

    Source: transformers 5, `T5GemmaConfig`, `T5Gemma2Config`. Differs: the encoder of T5Gemma 1 reads |i - j| < window,
      as DeepMind's and transformers 4.57 do; 5.23 reads one position more on each side. T5Gemma 2's cap of attention's
      logits is left out: no version of transformers has applied it.
    """
    merges = MERGES[config["model_type"]]
    if config.get("tie_word_embeddings") is False:
        raise _unsupported("tie_word_embeddings", False, "true: the head is the decoder's table")
    encoder, decoder = (_part(config, name) for name in ("encoder", "decoder"))
    encoder = _part(encoder, "text_config") if merges else encoder
    window = _number(encoder, "encoder", "sliding_window", int)
    # How far the encoder reads to each side, the position itself counted with what is behind it.
    behind, ahead = ((window + 1) // 2, window // 2) if merges else (window, window - 1)
    ids = {ours: _id(decoder, *theirs) for ours, theirs in _IDS.items()}
    found = {
        "vocab_size": _number(decoder, "decoder", "vocab_size", int),
        "encoder": {**_stack(encoder, "encoder", merges), "window": behind, "window_ahead": ahead},
        "decoder": _stack(decoder, "decoder", merges),
        "merges_attention": merges,
        "logits_softcap": _cap(decoder, "decoder", "final_logit_softcapping", _CAPS[merges][0]),
        "special_ids": ids,
    }
    if merges:
        # The model's is left out, or null, where the encoder's says it.
        named = (part.get("eoi_token_index") for part in (config, _part(config, "encoder")))
        found["eoi_token"] = next((index for index in named if index is not None), 256_000)
    return found


def num_layers(found: Mapping[str, Any]) -> dict[str, int]:
    """Returns the layers of each stack."""
    return {stack: found[stack]["num_layers"] for stack in ("encoder", "decoder")}


def names(found: Mapping[str, Any], stored: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (path here, name there) of every parameter.

    Args:
      found: From `settings`.
      stored: What is there, by name.
    """
    merges = found["merges_attention"]
    # Versions of transformers differ in whether they write the text encoder's name.
    text = _TEXT if any(name.startswith(f"model.encoder.{_TEXT}") for name in stored) else ""
    yield EMBEDDING, f"model.encoder.{text}embed_tokens.weight"
    if merges:
        yield EOI_EMBEDDING, f"model.encoder.{text}embed_tokens.eoi_embedding"
    else:
        yield DECODER_EMBEDDING, "model.decoder.embed_tokens.weight"
    attentions = {"encoder": {"attention": "self_attn"}, "decoder": {"self_attention": "self_attn"}}
    if not merges:
        attentions["decoder"]["encoder_decoder_attention"] = "cross_attn"
    for stack, modules in attentions.items():
        there = f"model.{stack}.{text if stack == 'encoder' else ''}"
        yield f"{stack}/{stack}_norm/scale", f"{there}norm.weight"
        for i in range(found[stack]["num_layers"]):
            for ours, theirs in _of_layer(modules, merges):
                yield f"{stack}/layers_{i}/{ours}", f"{there}layers.{i}.{theirs}.weight"


def _of_layer(modules: Mapping[str, str], merges: bool) -> Iterator[tuple[str, str]]:
    """(path, name) of the parameters of a layer, below it; `modules` are its attentions."""
    for ours, theirs in modules.items():
        for name, letter in _LINEAR.items():
            yield f"{ours}/{name}/kernel", f"{theirs}.{letter}"
        if merges:
            yield f"{ours}/query_norm/scale", f"{theirs}.q_norm"
            yield f"{ours}/key_norm/scale", f"{theirs}.k_norm"
        norm = "cross_attention" if theirs == "cross_attn" else ours
        for side in ("pre", "post"):
            yield f"{side}_{norm}_layer_norm/scale", f"{side}_{theirs}_layernorm"
    for name, theirs in _MLP.items():
        yield f"mlp/{name}/kernel", f"mlp.{theirs}"
    for side in ("pre", "post"):
        yield f"{side}_mlp_layer_norm/scale", f"{side}_feedforward_layernorm"


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of config.json that is an object of its own."""
    if not isinstance(part := config.get(name), Mapping):
        raise _unsupported(name, part, "an object with the sizes of a stack")
    return part


def _stack(config: Mapping[str, Any], stack: str, merges: bool) -> dict[str, Any]:
    """The fields of `StackSizes` that a part of config.json decides; the window is the decoder's."""
    for field, allowed in _FIXED.items():
        if config.get(field) not in allowed:
            raise _unsupported(f"{stack}.{field}", config[field], str(allowed[0]))
    size = lambda field: _number(config, stack, field, int)  # noqa: E731
    num_layers = size("num_hidden_layers")
    # What was left out is every sixth layer's, or every second's, full attention.
    period = config.get("sliding_window_pattern") or (6 if merges else 2)
    is_full = lambda i: (i + 1) % period == 0  # noqa: E731
    default = ["full_attention" if is_full(i) else "sliding_attention" for i in range(num_layers)]
    types = config.get("layer_types") or default
    fits = isinstance(types, list) and len(types) == num_layers
    if not fits or set(types) - set(_LAYER_TYPES):
        raise _unsupported(f"{stack}.layer_types", types, f"{num_layers} of {sorted(_LAYER_TYPES)}")
    return {
        "num_layers": num_layers,
        "emb_dim": size("hidden_size"),
        "num_heads": size("num_attention_heads"),
        "num_kv_heads": size("num_key_value_heads"),
        "head_dim": size("head_dim"),
        "mlp_dim": size("intermediate_size"),
        "query_scalar": _number(config, stack, "query_pre_attn_scalar", int | float),
        "window": size("sliding_window"),
        "window_ahead": 0,
        "layer_types": [_LAYER_TYPES[name] for name in types],
        "attention_softcap": None
        if merges
        else _cap(config, stack, "attn_logit_softcapping", _CAPS[merges][1]),
        **_rope(config, stack, merges),
    }


def _rope(config: Mapping[str, Any], stack: str, merges: bool) -> dict[str, float]:
    """Bases and scaling of rotations, as transformers 5 writes them or as 4 did."""
    full, sliding = _THETAS[merges]
    theta = config.get("rope_theta", full)
    # T5Gemma 1 has one base for all layers.
    local = config.get("rope_local_base_freq", sliding if merges else theta)
    older = {
        "full_attention": {**(config.get("rope_scaling") or {}), "rope_theta": theta},
        "sliding_attention": {"rope_theta": local},
    }
    found = config.get("rope_parameters") or older
    if not isinstance(found, Mapping):
        raise _unsupported(f"{stack}.rope_parameters", found, "an object")
    by_type = found if "rope_theta" not in found else dict.fromkeys(_LAYER_TYPES, found)
    full, sliding = ({**older[name], **(by_type.get(name) or {})} for name in older)
    number = lambda part, field: float(_number(part, stack, field, int | float))  # noqa: E731
    kinds = [part.get("rope_type", part.get("type", "default")) for part in (full, sliding)]
    if kinds[0] not in ("default", "linear") or kinds[1] != "default":
        raise _unsupported(
            f"{stack}.rope_parameters", found, "rope_type default, or linear in full layers"
        )
    return {
        "rope_theta": number(full, "rope_theta"),
        "rope_local_theta": number(sliding, "rope_theta"),
        "rope_factor": number(full, "factor") if kinds[0] == "linear" else 1.0,
    }


def _id(decoder: Mapping[str, Any], field: str, default: int) -> int:
    """A token id; the first of several that end a sequence, of which the others end turns of a chat."""
    value = decoder.get(field, default)
    first = value[0] if isinstance(value, list) and value else value
    return _number({field: first}, "decoder", field, int)


def _cap(config: Mapping[str, Any], stack: str, field: str, default: float | None) -> float | None:
    """A cap of logits; None where config.json says that there is none."""
    if config.get(field, default) is None:
        return None
    return _number({field: default, **config}, stack, field, int | float)


def _number(config: Mapping[str, Any], stack: str, field: str, kind: Any) -> Any:
    """A number that every saved config.json has."""
    value = config.get(field)
    if value is None or isinstance(value, bool) or not isinstance(value, kind) or value < 0:
        raise _unsupported(f"{stack}.{field}", value, "a number")
    return value
