"""A whole model in the form of another program: a Hugging Face folder, or a T5X checkpoint."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import json_files, load, one_writer
from prompt_tuning.checkpoints.formats import huggingface, huggingface_config, t5x_writer
from prompt_tuning.checkpoints.formats import huggingface_t5gemma as t5gemma
from prompt_tuning.checkpoints.formats.safetensors_shards import write_shards
from prompt_tuning.checkpoints.method_files.merged import MergedSource
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.checkpoints.prompt_files.source import resolve_checkpoint
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.commands.export import tokenizer
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import DECODER_EMBEDDING, EMBEDDING, is_method, is_prompt

FORMATS = ("huggingface", "t5x")
_GENERATION = "generation_config.json"


def export_model(flags: argparse.Namespace) -> str:
    """Writes the model at SOURCE to TARGET, and returns what that is.

    Args:
      flags: The command's.

    Raises:
      CheckpointError: If there is no model at SOURCE, or the format cannot hold it.
      ConfigError: If TARGET exists, or a flag does not fit.
    """
    target = epath.Path(flags.target)
    write.check_target(target, file_format="peft", base_model=None)
    opened = source = open_source(resolve_checkpoint(flags.source, step=flags.step))
    if source.kind == "run" and any(map(is_method, source.shapes())):
        source = MergedSource(source, read_set(source.path, setting="SOURCE"))
    shapes = load.unscanned_shapes(source)
    groups = load.links_of(source, shapes)
    dtypes = load.kept_dtypes(source, groups)
    if any(dtype == np.int8 for dtype in dtypes.values()):
        raise CheckpointError(
            f"{source.path} holds int8, of which no other program's form is made",
            got="int8",
            expected="weights in float32 or bfloat16",
            fix="name the checkpoint that it was converted from",
        )
    arrays = load.whole_arrays(source, groups, shapes, dtypes)
    if flags.format == "t5x":
        with one_writer.holding(target, "TARGET"):
            size = t5x_writer.write_t5x(target, arrays, step=source.step or 0)
        return f"{target}: a T5X checkpoint of {size / 2**20:,.0f} MiB, from {opened.path}"
    base = epath.Path(flags.base_model) if flags.base_model else _folder_it_began_as(opened)
    config = _config_of(opened, shapes, base)
    names = _names_of(opened, config, shapes)
    order = dict.fromkeys(link.target for links in groups for link in links)
    config["dtype"] = "float32" if np.float32 in dtypes.values() else "bfloat16"
    flipped = {path: huggingface.is_transposed(path) for path in order}
    tensors = {
        names[path]: (shapes[path][:: -1 if flipped[path] else 1], dtypes[path]) for path in order
    }
    with one_writer.holding(target, "TARGET"):
        size = write_shards(target, tensors, (x.T if flipped[path] else x for path, x in arrays))
        files = {_GENERATION: _encode(_generation_of(config)), **tokenizer.files(opened, base)}
        # By its config.json is a folder told as a model.
        for name, data in {**files, huggingface_config.CONFIG_FILE: _encode(config)}.items():
            json_files.write_atomically(target / name, data)
    return f"{target}: a model for transformers of {size / 2**20:,.0f} MiB, from {opened.path}"


def _folder_it_began_as(source: ParamSource) -> epath.Path | None:
    """The Hugging Face folder that a model was converted from or tuned from; None if there is none any more."""
    while source.kind != "huggingface":
        recorded = getattr(source, "metadata", {}).get("initial_checkpoint_path")
        origin = recorded if source.kind == "run" else getattr(source, "origin", None)
        if not origin:
            return None
        try:
            source = open_source(origin)
        except CheckpointError:
            return None
    return source.path


def _config_of(
    source: ParamSource, shapes: Mapping[str, tuple[int, ...]], base: epath.Path | None
) -> dict[str, Any]:
    """The config.json of a model, by what its checkpoint says, by its shapes, and by the folder it began as."""
    there = huggingface_config.read_config(base) if base else {}
    recorded = getattr(source, "metadata", {}).get("model") or source.settings or {}
    if there.get("model_type") in t5gemma.MERGES or "encoder" in recorded:
        # Its second generation has parts for images there, which are not loaded here.
        if there.get("model_type") != "t5gemma":
            raise CheckpointError(
                "A T5Gemma is written with its own folder's config.json, and a T5Gemma 2 not at all: it would lack the"
                " parts that read images",
                got=there.get("model_type", "no folder that it was tuned from"),
                expected="the folder of a T5Gemma of the first generation",
                fix="name that folder as --base_model; use a T5Gemma 2 here",
            )
        _check_t5gemma(there, shapes, base)
        return there
    seen = huggingface_config.settings_seen(shapes)
    has_head = huggingface.HEAD in shapes
    is_gated = "encoder/layers_0/mlp/wi_0/kernel" in shapes
    # What no shape tells is as in all T5 of this form but UL2, which its folder or its run has to say.
    assumed = {
        "mlp_activations": ("gelu", "linear") if is_gated else ("relu",),
        "logits_via_embedding": not has_head,
        "relative_attention_max_distance": 128,
    }
    stated = {**(huggingface_config.t5_settings(there) if there else {}), **recorded}
    for name, value in seen.items():
        if name in stated and name != "relative_bias_per_layer" and stated[name] != value:
            raise CheckpointError(
                f"{base or source.path} describes another model than the weights of {source.path}",
                got=f"{name} = {stated[name]}",
                expected=f"{value}",
                fix="name the folder of a model of this size as --base_model",
            )
    return huggingface_config.config_of({**assumed, **stated, **seen}, there.get("model_type"))


def _check_t5gemma(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], base: epath.Path | None
) -> None:
    """Raises CheckpointError if a T5Gemma's config.json is of another size than the weights."""
    described = t5gemma.settings(config)
    for stack, table in (("encoder", EMBEDDING), ("decoder", DECODER_EMBEDDING)):
        sizes = described[stack]
        expected = [described["vocab_size"], sizes["emb_dim"], sizes["mlp_dim"]]
        wi = shapes.get(f"{stack}/layers_0/mlp/wi_0/kernel", ())
        stored = [*shapes.get(table, ()), *wi[1:]]
        if stored != expected:
            raise CheckpointError(
                f"{base} describes another model than the weights",
                got=f"{stack}: vocabulary, width and feed-forward width {expected}",
                expected=f"{stored}",
                fix="name the folder of a model of this size as --base_model",
            )


def _names_of(
    source: ParamSource, config: Mapping[str, Any], shapes: Mapping[str, Any]
) -> dict[str, str]:
    """The name there of each parameter; an error if the model has others."""
    names = huggingface.names_of(config)
    if set(names) != set(shapes):
        extra = sorted(set(shapes) - set(names))
        has_prompt = any(map(is_prompt, extra))
        raise CheckpointError(
            f"{source.path} is not only a model that transformers has",
            got=f"{extra[:3]} too" if extra else f"no {sorted(set(names) - set(shapes))[:3]}",
            expected="the parameters that its config.json describes",
            fix="export the prompt by itself, without --model, for the model that it was tuned on"
            if has_prompt
            else "merge what a method added first (`prompt-tuning convert --merge`)"
            if any(map(is_method, extra))
            else "name the folder of a model of this size as --base_model",
        )
    return names


def _generation_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The generation_config.json that a config.json means."""
    ids = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    found = {name: config[name] for name in ids if config.get(name) is not None}
    return {"_from_model_config": True, **found}


def _encode(value: Mapping[str, Any]) -> bytes:
    """A JSON file as transformers writes it."""
    return (json.dumps(dict(value), indent=2, sort_keys=True) + "\n").encode()
