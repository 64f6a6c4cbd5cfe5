"""What a Hugging Face `config.json` says about a T5 model, in the names of `T5Config`, and how that is compared."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import EMBEDDING, TABLE
from prompt_tuning.types import SpecialIds

CONFIG_FILE = "config.json"
# Hugging Face's name of an activation -> T5X's. Hugging Face's "gelu" is the exact one, which no T5 was trained with.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
    "linear": "linear",
}
# Fields that are fixed here -> the values that all T5 models have; None is a field that was left out.
_FIXED: dict[str, tuple[Any, ...]] = {
    "layer_norm_epsilon": (1e-6, None),
}
# Sizes: field of `T5Config` -> field there.
_SIZES = {
    "vocab_size": "vocab_size",
    "emb_dim": "d_model",
    "num_heads": "num_heads",
    "num_encoder_layers": "num_layers",
    "num_decoder_layers": "num_decoder_layers",
    "head_dim": "d_kv",
    "mlp_dim": "d_ff",
    "relative_attention_num_buckets": "relative_attention_num_buckets",
    "relative_attention_max_distance": "relative_attention_max_distance",
}
# Special ids: here -> there.
_IDS = {"pad": "pad_token_id", "eos": "eos_token_id", "start": "decoder_start_token_id"}
# T5's own ids of padding, end and start.
_OWN_IDS = dataclasses.asdict(SpecialIds())
# What a shape of a parameter tells, which is compared where it is loaded.
_SEEN = frozenset(
    "vocab_size emb_dim num_heads num_encoder_layers num_decoder_layers head_dim mlp_dim"
    " relative_attention_num_buckets relative_bias_per_layer".split()
)


class _ModelType(NamedTuple):
    """What a model_type of T5's says that config.json may leave out.

    Attributes:
      feed_forward: Its feed_forward_proj.
      bias_per_layer: Whether every layer has a relative position table.
      rescales: Whether version 5, which writes `tie_word_embeddings: true` for all, rescales the decoder's output.
    """

    feed_forward: str
    bias_per_layer: bool = False
    rescales: bool = True


MODEL_TYPES = {
    "t5": _ModelType("relu"),
    "mt5": _ModelType("gated-gelu", rescales=False),
    "umt5": _ModelType("gated-gelu", bias_per_layer=True),
}


def read_config(folder: epath.PathLike) -> dict[str, Any]:
    """Returns the parsed `config.json` of a model's folder.

    Raises:
      CheckpointError: If it is missing or no JSON object.
    """
    return json_files.read(
        epath.Path(folder) / CONFIG_FILE,
        expected="the configuration that Hugging Face saves beside a model's weights",
        fix="download the model's config.json again",
    )


def width_of(config: Mapping[str, Any]) -> int | None:
    """Returns the width of the encoder that a config.json of any family describes; None if it does not say it."""
    encoder = config.get("encoder") or {}
    stack = {**encoder, **(encoder.get("text_config") or {})}
    return config.get("d_model") or stack.get("hidden_size")


def t5_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `T5Config` that a `config.json` decides; `T5Config(**t5_settings(config))` is the model.

    `logits_via_embedding` is whether the head rescales by 1/sqrt(emb_dim). A head that is tied and does not rescale, as
    transformers 5 saves T5 1.1 and mT5 that were never trained, is one of its own that equals the embedding table.

    Args:
      config: The parsed file, of any version of transformers.

    Raises:
      CheckpointError: If it is another kind of model, or has a value that T5 here has not; the text names the field.

    Source: transformers 4 and 5, `T5Config`, `MT5Config`, `UMT5Config`.
    """
    family = config.get("model_type")
    if family not in MODEL_TYPES:
        raise CheckpointError(
            "The Hugging Face model is no T5",
            got=f"model_type {family!r}",
            expected=f"one of {', '.join(MODEL_TYPES)}, t5gemma, t5gemma2",
            fix="use a T5, Flan-T5, T0, mT5, UMT5, ByT5, UL2 or T5Gemma checkpoint",
        )
    architectures = config.get("architectures") or []
    if config.get("is_encoder_decoder") is False or any("Encoder" in str(x) for x in architectures):
        raise encoder_only(
            f"is_encoder_decoder {config.get('is_encoder_decoder')}, {architectures}"
        )
    for field, allowed in _FIXED.items():
        if config.get(field) not in allowed:
            raise unsupported(field, config[field], str(allowed[0]))
    defaults = {
        "num_decoder_layers": config.get("num_layers"),
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    }
    return {
        **{ours: _size(config, theirs, defaults.get(theirs)) for ours, theirs in _SIZES.items()},
        "mlp_activations": _mlp_activations(config, MODEL_TYPES[family].feed_forward),
        "logits_via_embedding": _rescales_output(config),
        "relative_bias_per_layer": MODEL_TYPES[family].bias_per_layer,
        **_special_ids(config),
    }


def _special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of padding, end and start; nothing where they are T5's own, as earlier versions left them out."""
    ids = {}
    for name, field in _IDS.items():
        value = config.get(field)
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        ids[name] = _OWN_IDS[name] if value is None else value
        if isinstance(ids[name], bool) or not isinstance(ids[name], int) or ids[name] < 0:
            raise unsupported(field, value, "a token id")
    return {"special_ids": ids} if ids != _OWN_IDS else {}


def config_of(settings: Mapping[str, Any], model_type: str | None = None) -> dict[str, Any]:
    """Returns a `config.json` for a T5, from which `t5_settings` reads the same settings.

    Args:
      settings: The model, by the names of `T5Config`, as `t5_settings` or a run's record has them.
      model_type: What the checkpoint that it comes from is called there; None for what its settings are of.

    Raises:
      CheckpointError: If transformers has no T5 with such a feed-forward block.
    """
    first, *rest = settings["mlp_activations"]
    theirs = {here: there for there, here in reversed(_ACTIVATIONS.items())}
    if first not in theirs or rest not in ([], ["linear"]):
        raise CheckpointError(
            "transformers has no T5 with this feed-forward block",
            got=[first, *rest],
            expected="one activation, and 'linear' beside it or nothing",
            fix="write it as --format=t5x",
        )
    # By this name transformers means the tanh approximation.
    gated = f"gated-{'gelu' if first == 'gelu' else theirs[first]}"
    if settings["relative_bias_per_layer"]:
        model_type = "umt5"
    # One that is called mT5 never rescales there.
    elif model_type not in MODEL_TYPES or settings["logits_via_embedding"]:
        model_type = "t5"
    names = {"t5": "T5", "mt5": "MT5", "umt5": "UMT5"}
    ids = {**_OWN_IDS, **(settings.get("special_ids") or {})}
    return {
        "architectures": [f"{names[model_type]}ForConditionalGeneration"],
        "model_type": model_type,
        **{there: settings[here] for here, there in _SIZES.items()},
        "feed_forward_proj": gated if rest else theirs[first],
        "tie_word_embeddings": settings["logits_via_embedding"],
        **{field: ids[name] for name, field in _IDS.items()},
        "layer_norm_epsilon": 1e-6,
        "dropout_rate": 0.1,
        "is_encoder_decoder": True,
        "use_cache": True,
    }


def settings_seen(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Returns the settings of a T5 that the shapes of its parameters tell.

    Args:
      shapes: Path -> shape, layer by layer.
    """
    stacks = {
        stack: {p.split("/")[1] for p in shapes if p.startswith(f"{stack}/layers_")}
        for stack in ("encoder", "decoder")
    }
    layer = "encoder/layers_0"
    tables = [path for path in shapes if path.startswith("encoder/") and path.endswith(TABLE)]
    heads, buckets = shapes[tables[0]]
    vocab_size, emb_dim = shapes[EMBEDDING]
    gated = f"{layer}/mlp/wi_0/kernel"
    return {
        "vocab_size": vocab_size,
        "emb_dim": emb_dim,
        "num_heads": heads,
        **{f"num_{stack}_layers": len(layers) for stack, layers in stacks.items()},
        "head_dim": shapes[f"{layer}/attention/query/kernel"][1] // heads,
        "mlp_dim": shapes[gated if gated in shapes else f"{layer}/mlp/wi/kernel"][1],
        "relative_attention_num_buckets": buckets,
        "relative_bias_per_layer": tables[0].startswith(layer),
    }


def encoder_only(got: str) -> CheckpointError:
    """Returns the error for a model without a decoder."""
    return CheckpointError(
        "The model is an encoder alone, and prompts are tuned by what a decoder says",
        got=got,
        expected="encoder and decoder, as T5ForConditionalGeneration saves them",
        fix="use the whole model that the encoder was taken from",
    )


def check_settings(settings: Mapping[str, Any], model_config: Any, *, path: epath.PathLike) -> None:
    """Raises CheckpointError if a model computes something else than a checkpoint was trained for.

    Only what the shapes of parameters cannot tell is compared; those are compared where they are loaded.

    Args:
      settings: From `t5_settings`.
      model_config: The `T5Config` of the model that the run builds.
      path: The checkpoint, to be named.
    """
    family = type(model_config).__name__
    ids = dataclasses.asdict(model_config.ids)
    ours = _leaves({**dataclasses.asdict(model_config), "special_ids": ids})
    theirs = _leaves({"special_ids": _OWN_IDS, **settings})
    if other := sorted(set(theirs) - set(ours)):
        raise CheckpointError(
            f"The checkpoint {path} is of another family than the model",
            got=f"network.{family}, which has no {other[0]}",
            expected="the family that the checkpoint's config.json names",
            fix=f"use --gin_file={_gin_file(settings)}",
        )
    differs = [name for name, x in theirs.items() if name not in _SEEN and ours[name] != x]
    if differs:
        bindings = [f"{_binding(family, name)} = {theirs[name]!r}" for name in differs]
        if any(name.startswith("special_ids.") for name in differs):
            # Which object the ids are fields of has to be said where they are not T5's.
            bindings.insert(0, f"network.{family}.special_ids = @network.SpecialIds()")
        names = ", ".join(f"{_binding(family, name)} differs" for name in differs)
        raise CheckpointError(
            f"The model computes something else than the checkpoint {path}: {names}",
            got=[ours[name] for name in differs],
            expected=f"{[theirs[name] for name in differs]}, by the checkpoint's config.json",
            fix=f"use --gin_file={_gin_file(settings)}, or bind {' and '.join(bindings)}",
        )


def _leaves(settings: Mapping[str, Any], name: str = "") -> dict[str, Any]:
    """Settings by dotted name, lists as tuples."""
    leaves: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            leaves |= _leaves(value, f"{name}{key}.")
        else:
            # JSON has no tuples.
            leaves[f"{name}{key}"] = tuple(value) if isinstance(value, list) else value
    return leaves


def _binding(family: str, field: str) -> str:
    """How gin names a field: those of a stack, and of the special ids, are of a configurable of their own."""
    part, _, name = field.rpartition(".")
    owners = {"": f"network.{family}", "special_ids": "network.SpecialIds"}
    return f"{owners.get(part, f'{part}/network.T5GemmaStack')}.{name}"


def _gin_file(settings: Mapping[str, Any]) -> str:
    """The gin file that a checkpoint's family starts from, its size left open."""
    if "encoder" in settings:
        number = "2" if settings["merges_attention"] else ""
        return f"models/t5gemma{number}_{{size}}_prompt.gin"
    families = {250112: "mt5", 384: "byt5", 256000: "madlad400"}
    if settings["relative_bias_per_layer"]:
        name = "umt5"
    elif "silu" in settings["mlp_activations"]:
        return "models/ul2_prompt.gin"
    elif settings["logits_via_embedding"]:
        name = "t5_1_0"
    else:
        name = families.get(settings["vocab_size"], "t5_1_1")
    return f"models/{name}_{{size}}_prompt.gin"


def _size(config: Mapping[str, Any], field: str, default: int | None = None) -> int:
    """A size; those without a default every saved config.json has."""
    value = config.get(field) or default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise unsupported(field, value, "a positive integer")
    return value


def _mlp_activations(config: Mapping[str, Any], default: str) -> tuple[str, ...]:
    """The activations of the feed-forward block; what was derived from `feed_forward_proj` wins, where it was saved."""
    text = str(config.get("feed_forward_proj") or default)
    # By this name transformers means the tanh approximation, and only by this one.
    derived = "gelu_new" if text == "gated-gelu" else text.rpartition("-")[2]
    activation = config.get("dense_act_fn") or derived
    if activation not in _ACTIVATIONS:
        field = "feed_forward_proj" if activation == derived else "dense_act_fn"
        raise unsupported(
            field, config.get(field, text), f"an activation of {', '.join(_ACTIVATIONS)}"
        )
    gated = config.get("is_gated_act", text.startswith("gated-"))
    return (_ACTIVATIONS[activation], *(["linear"] if gated else []))


def _rescales_output(config: Mapping[str, Any]) -> bool:
    """Whether the decoder's output is multiplied with 1/sqrt(d_model) before the head."""
    recorded = config.get("scale_decoder_outputs")
    if recorded is not None:
        return bool(recorded)
    tied = config.get("tie_word_embeddings", True) is not False
    # transformers 4 wrote what it did.
    major = str(config.get("transformers_version", "5")).partition(".")[0]
    is_5 = major.isdecimal() and int(major) >= 5
    return tied and (MODEL_TYPES[config["model_type"]].rescales or not is_5)


def unsupported(field: str, value: Any, expected: str, family: str = "T5") -> CheckpointError:
    """The error for a value of config.json that no model here has."""
    return CheckpointError(
        f"{field} in config.json is not what {family} has here",
        got=value,
        expected=expected,
        fix=f"use a checkpoint of a released {family} architecture",
    )
