"""Prompt-tuning adapters of Hugging Face's PEFT: a directory with a configuration and one tensor.

P-tuning's adapters are the same: of the network that makes the prompt PEFT saves what it made. Those of multitask
prompt tuning hold what each task multiplies the prompt with beside it (`method_files/mpt.py`).

What PEFT computes for a T5 with such an adapter, from version 0.4 (2023) to 0.21: the first `num_virtual_tokens` rows
of the tensor go in front of the encoder's embedded input, with an attention mask of 1; the decoder gets nothing. So
`num_transformer_submodules` is 1 in what is written here. With 2, PEFT's default for T5, the tensor has twice as many
rows, and the second half, meant for a decoder, is never read. In a T5Gemma the rows are multiplied on their way
(`is_scaled`).

Source: PEFT 0.21, `peft_model.py` `PeftModelForSeq2SeqLM.forward` and `.generate`, `tuners/prompt_tuning/model.py`.
"""

import io
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.formats import torch_files
from prompt_tuning.checkpoints.formats.huggingface_config import CONFIG_FILE as MODEL_CONFIG_FILE
from prompt_tuning.checkpoints.formats.huggingface_t5gemma import MERGES
from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.checkpoints.prompt_files import matrices
from prompt_tuning.errors import CheckpointError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
FILES = (CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE)
_PLAIN, _P_TUNING, MULTITASK = "PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"
TASK = "SEQ_2_SEQ_LM"
TENSOR = "prompt_embeddings"
# Beside it, of `MULTITASK`: what each task has (`checkpoints/method_files/mpt.py`).
OF_TASKS = ("prefix_task_cols", "prefix_task_rows")


def is_adapter(path: epath.Path) -> bool:
    """Returns whether `path` is the directory of an adapter of any kind."""
    return (path / CONFIG_FILE).is_file()


def read_adapter(
    path: epath.Path, *, setting: str, width: int | None = None
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any] | None]:
    """Reads the prompt that PEFT puts in front of the encoder's input.

    Args:
      path: The adapter's directory; local or gs://.
      setting: The setting that names it, for messages.
      width: H of the model; None allows any.

    Returns:
      [P, H] float32, and what the prompt belongs to if `encode_adapter` wrote it.

    Raises:
      CheckpointError: If the adapter is of another kind than prompt tuning or for another kind of model, is damaged,
        or its prompt is of another width.
    """
    found = kind_of(path)
    kind = found if found in (_P_TUNING, MULTITASK) else _PLAIN
    config = read_config(path, kind=kind, what="one prompt in front of the encoder's input")
    tensors, info = read_tensors(path)
    if set(tensors) != {TENSOR, *(OF_TASKS if kind == MULTITASK else ())}:
        raise CheckpointError(
            f"The adapter {path} holds something else than a prompt",
            got=sorted(tensors),
            expected=f"the tensor {TENSOR} alone",
            fix="train a prompt-tuning adapter without modules_to_save",
        )
    rows = config.get("num_virtual_tokens")
    stacks = config.get("num_transformer_submodules")
    if stacks is None:
        stacks = 2 if config.get("task_type") == TASK else 1
    shape = list(tensors[TENSOR].shape)
    named = [rows * stacks if isinstance(rows, int) else None, config.get("token_dim")]
    # PEFT takes the width from the model where its configuration does not say it.
    if named[1] is None and len(shape) == 2:
        named[1] = shape[1]
    if shape != named:
        raise CheckpointError(
            f"The adapter {path} contradicts its own {CONFIG_FILE}",
            got=f"{TENSOR} {shape}",
            expected=f"{named}: num_virtual_tokens x num_transformer_submodules, and token_dim",
            fix="save the adapter again, or copy it again",
        )
    if stacks > 1:
        logging.info(
            "%s: PEFT reads the first %d rows of %d only; so does this", path, rows, shape[0]
        )
    prompt = matrices.check_matrix(
        tensors[TENSOR][:rows], path, what="prompt", setting=setting, width=width
    )
    prompt = _scaled(prompt, base_model=config.get("base_model_name_or_path"), info=info)
    if kind == MULTITASK:
        # Without what tasks multiply it with it is no prompt to put in front.
        info = {METHOD: {"name": "MPT"}, **(info or {})}
    return prompt, info


def encode_adapter(
    prompt: Float[np.ndarray, "P H"], info: Mapping[str, Any], *, base_model: str | None
) -> dict[str, bytes]:
    """Returns the files of an adapter, by name, that `peft.PeftModel.from_pretrained` loads; see `encode_files`.

    Args:
      prompt: [P, H] float32.
      info: What the prompt belongs to; kept in the metadata of the tensor's file.
      base_model: Name on the Hugging Face hub, or path, of the model that the prompt is for.
    """
    prompt = _scaled(prompt, base_model=base_model, info=info, power=-1)
    config = {
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "prompt_tuning_init": "RANDOM",
        "token_dim": prompt.shape[1],
    }
    return encode_files({TENSOR: prompt}, info, config, kind=_PLAIN, base_model=base_model)


def encode_files(
    tensors: Mapping[str, np.ndarray],
    info: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    kind: str,
    base_model: str | None,
) -> dict[str, bytes]:
    """Returns the files of an adapter for a T5, by name; the configuration, which makes a folder one, comes last.

    Args:
      tensors: Name -> tensor.
      info: What they belong to; kept in the metadata of their file.
      config: The settings of this kind.
      kind: The `peft_type`.
      base_model: Name on the Hugging Face hub, or path, of the model that it is for.
    """
    whole = {
        **config,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "peft_type": kind,
        "task_type": TASK,
    }
    return {
        WEIGHTS_FILE: matrices.encode_safetensors(tensors, info),
        CONFIG_FILE: (json.dumps(whole, indent=2, sort_keys=True) + "\n").encode(),
    }


def is_scaled(model: Mapping[str, Any]) -> bool:
    """Returns whether transformers multiplies a prompt of PEFT's with the square root of its width.

    Its T5Gemma does so with whatever it is given for embedded input; T5Gemma 2 and T5 take that as it is. Prompts here
    are as they enter the encoder.

    Args:
      model: The model's config.json, or what a run recorded of its architecture.
    """
    merges = model.get("merges_attention", MERGES.get(str(model.get("model_type"))))
    return merges is False


def _scaled(
    prompt: Float[np.ndarray, "P H"],
    *,
    base_model: str | None,
    info: Mapping[str, Any] | None,
    power: int = 1,
) -> Float[np.ndarray, "P H"]:
    """A prompt as it enters the encoder, given as PEFT has it; with power -1 the other way round.

    The model is the one that the run recorded, else the folder that the adapter names, else what its name says; with a
    warning it is a T5 where the name says nothing.
    """
    model: Mapping[str, Any] = (info or {}).get("model") or {}
    if not model:
        base_model = base_model or ""
        found = epath.Path(base_model) / MODEL_CONFIG_FILE
        name = base_model.rpartition("/")[2].lower()
        if base_model and "://" not in base_model and found.is_file():
            model = json_files.read(
                found, expected="the model's configuration", fix="copy it again"
            )
        elif name.startswith("t5gemma-") and not name.startswith("t5gemma-2-"):
            model = {"model_type": "t5gemma"}
        elif not re.match(r"t5gemma-2-|(?!.*t5gemma).*(t5|ul2|t0)", name):
            logging.warning(
                "Nothing says which model a prompt of PEFT's is for (base_model_name_or_path: %r), so it is taken for a"
                " T5's. One of a T5Gemma has other numbers there, and needs the folder of that model as its base",
                base_model,
            )
    if not is_scaled(model):
        return prompt
    return prompt * np.float32(prompt.shape[1] ** (0.5 * power))


def kind_of(path: epath.Path) -> str | None:
    """Returns the `peft_type` of an adapter."""
    return _config(path).get("peft_type")


def _config(path: epath.Path) -> dict[str, Any]:
    """The configuration of an adapter."""
    return json_files.read(
        path / CONFIG_FILE, expected="the JSON that PEFT wrote", fix="copy the adapter again"
    )


def read_config(path: epath.Path, *, kind: str, what: str) -> dict[str, Any]:
    """Returns the configuration of an adapter for a T5.

    Args:
      path: The adapter's directory.
      kind: The `peft_type` that it has to have.
      what: What adapters of this kind hold, for messages.

    Raises:
      CheckpointError: If it is of another kind or for another kind of model, or damaged.
    """
    config = _config(path)
    found = config.get("peft_type")
    if found != kind:
        raise CheckpointError(
            f"{path} is a PEFT adapter of another kind",
            got=f"peft_type {found}",
            expected=f"peft_type {kind}: {what}",
            fix=f"use an adapter of kind {kind}",
        )
    task = config.get("task_type")
    if task not in (None, TASK):
        raise CheckpointError(
            f"{path} is a PEFT adapter for another kind of model",
            got=f"task_type {task}",
            expected=f"task_type {TASK}, as of a T5",
            fix="use an adapter that was trained on a T5",
        )
    return config


def leaves_modules_out(config: Mapping[str, Any]) -> bool:
    """Returns whether an adapter of linear maps may have some of a map's layers only; a list of last names has all."""
    targets = config.get("target_modules")
    if isinstance(targets, str) or any("layer." in name for name in targets or ()):
        return True
    return any(config.get(f) not in (None, []) for f in ("exclude_modules", "layers_to_transform"))


def read_tensors(path: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Returns the tensors of an adapter and what is recorded of them; from a pickled file through PyTorch."""
    if (path / WEIGHTS_FILE).is_file():
        return matrices.read_safetensors(path / WEIGHTS_FILE)
    pickled = path / PICKLED_FILE
    if not pickled.is_file():
        raise CheckpointError(
            f"The adapter {path} has no weights",
            got=sorted(p.name for p in path.iterdir()),
            expected=WEIGHTS_FILE,
            fix="copy the adapter again",
        )
    loaded = torch_files.load_tensors(io.BytesIO(pickled.read_bytes()), str(pickled))
    return {name: tensor.detach().float().numpy() for name, tensor in loaded.items()}, None
