"""Writes what a run added to its model: prompts as plain NumPy files, what a method added as one safetensors file.

Each says what it belongs to, a NumPy file in a JSON file beside it.

`numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt` is a `.npy` file without suffix, as the original
prompt tuning code leaves it. These files are written at every save and never deleted: they are kilobytes.
"""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Float

from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.checkpoints.formats.huggingface_config import CONFIG_FILE, width_of
from prompt_tuning.checkpoints.method_files.method_set import METHOD_FILE
from prompt_tuning.checkpoints.paths import STEP_PREFIX
from prompt_tuning.checkpoints.prompt_files import matrices, peft, read
from prompt_tuning.checkpoints.prompt_files.read import FOLDER
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params import layouts
from prompt_tuning.params.names import PROMPT_PATH, is_method
from prompt_tuning.types import Array

FORMATS = ("npy", "safetensors", "peft")


def folder(model_dir: epath.PathLike, step: int) -> epath.Path:
    """Returns the directory of the prompts of `step`."""
    return epath.Path(model_dir) / FOLDER / f"{STEP_PREFIX}{step}"


def save_prompts(
    model_dir: epath.PathLike, step: int, flat_prompts: Mapping[str, Array], info: Mapping[str, Any]
) -> None:
    """Writes each prompt, and what a method added, with `info`, so that a reader sees all files of the step or none.

    Every process calls this; process 0 writes.

    Args:
      model_dir: Output folder of the run.
      step: Updates applied to these parameters.
      flat_prompts: Parameter path -> prompt [P, H], or what a method added (`names.is_method`).
      info: What the prompts belong to (model, task, length, digests); anything JSON can hold.
    """
    arrays = {path: _to_host(array) for path, array in flat_prompts.items()}
    if jax.process_index() != 0:
        return
    final = folder(model_dir, step)
    final.parent.mkdir(parents=True, exist_ok=True)
    # A killed predecessor may have left its temporary folder: it is simply written over.
    target = final if final.exists() else final.parent / f"{final.name}.tmp"
    target.mkdir(parents=True, exist_ok=True)
    prompts = {path: array for path, array in arrays.items() if not is_method(path)}
    for path, array in prompts.items():
        side = {**info, "parameter": path, "shape": list(array.shape), "step": step}
        _write_npy(target / path.replace("/", "."), array, side)
    if len(prompts) < len(arrays):
        apart = layouts.take_apart({p: x for p, x in arrays.items() if p not in prompts})
        encoded = encode_set(apart, {**info, "step": step})
        json_files.write_atomically(target / METHOD_FILE, encoded)
    if target != final:
        target.rename(final)


def update_info(model_dir: epath.PathLike, step: int, info: Mapping[str, Any]) -> None:
    """Adds `info`, such as metrics measured after the save, to the JSON files of `step`; process 0 writes.

    Args:
      model_dir: Output folder of the run.
      step: A step whose prompts were saved.
      info: Keys to add or replace.
    """
    if jax.process_index() != 0:
        return
    for path in sorted(folder(model_dir, step).glob("*.json")):
        recorded = read.read_info(path)
        json_files.write_atomically(path, json_files.encode({**recorded, **info}))
    added = folder(model_dir, step) / METHOD_FILE
    if added.is_file():
        tensors, recorded = matrices.read_safetensors(added)
        encoded = matrices.encode_safetensors(tensors, {**(recorded or {}), **info})
        json_files.write_atomically(added, encoded)


def encode_set(params: Mapping[str, Array], info: Mapping[str, Any]) -> bytes:
    """Returns the `.safetensors` file of what a method added.

    Args:
      params: Path in the unscanned layout -> array.
      info: What they belong to; anything JSON can hold.
    """
    arrays = {path.replace("/", "."): np.asarray(x) for path, x in params.items()}
    return matrices.encode_safetensors(arrays, info)


def write_prompt(
    target: epath.PathLike,
    prompt: Float[np.ndarray, "P H"],
    info: Mapping[str, Any],
    *,
    file_format: str,
    base_model: str | None = None,
) -> None:
    """Writes a prompt and what it belongs to, so that a reader sees all of it or none.

    Args:
      target: A file, for "peft" a folder, that does not exist; local or gs://.
      prompt: [P, H] float32.
      info: What it belongs to: in a JSON file beside a `.npy`, in the metadata of a `.safetensors` file.
      file_format: One of `FORMATS`.
      base_model: Of a PEFT adapter, what it records as its model; None for the Hugging Face folder that the run
        started from, if it did.

    Raises:
      ConfigError: If `target` exists, its ending is not that of its format, or `base_model` is given with another
        format.
      CheckpointError: If the base model is a folder here, and of another width than the prompt.
    """
    target = epath.Path(target)
    check_target(target, file_format=file_format, base_model=base_model)
    target.parent.mkdir(parents=True, exist_ok=True)
    if file_format == "peft":
        base_model = base_model_of(base_model, info, prompt.shape[1])
        write_folder(target, peft.encode_adapter(prompt, info, base_model=base_model))
    elif file_format == "safetensors":
        name = PROMPT_PATH.replace("/", ".")
        json_files.write_atomically(target, matrices.encode_safetensors({name: prompt}, info))
    else:
        _write_npy(target, prompt, info)


def check_target(target: epath.Path, *, file_format: str, base_model: str | None) -> None:
    """Raises ConfigError unless something may be written to `target`; arguments as those of `write_prompt`."""
    if base_model and file_format != "peft":
        raise ConfigError(
            "--base_model is written into PEFT adapters only",
            got=f"--format={file_format}",
            expected="--format=peft",
            fix="leave --base_model out",
        )
    if file_format != "peft" and target.suffix != f".{file_format}":
        raise ConfigError(
            "The name of TARGET does not fit its format, by which it is read",
            got=target.name,
            expected=f"a name that ends in .{file_format}",
            fix=f"write {target.name}.{file_format}",
        )
    if target.exists():
        raise ConfigError(
            "TARGET exists already",
            got=str(target),
            expected="a name that is free",
            fix="choose another name, or remove what is there",
        )


def _write_npy(path: epath.Path, prompt: np.ndarray, info: Mapping[str, Any]) -> None:
    """Writes a `.npy` file and the JSON file beside it."""
    encoded = matrices.encode_npy(prompt)
    side = {**info, read.DIGEST: content.of_bytes(encoded)}
    # In this order a prompt never lies there without what it belongs to.
    json_files.write_atomically(path.parent / f"{path.name}.json", json_files.encode(side))
    json_files.write_atomically(path, encoded)


def _to_host(array: Array) -> np.ndarray:
    """The whole array on every host, also if it is spread over several."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if not array.is_fully_replicated:
            return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def base_model_of(
    named: str | None, info: Mapping[str, Any], width: int | None = None
) -> str | None:
    """Returns the model that an adapter names.

    Args:
      named: What the user called it; None for the Hugging Face folder that the run started from, if it did.
      info: What the run recorded.
      width: Of the prompt; None where there is none.

    Raises:
      CheckpointError: If it is a folder here and of another width than the prompt.
    """
    recorded = info.get("initial_checkpoint_path")
    # PEFT opens local folders only; a bucket would be asked over the network for nothing.
    if not named and recorded and "://" not in recorded:
        named = recorded if (epath.Path(recorded) / CONFIG_FILE).is_file() else None
    if not named or not (epath.Path(named) / CONFIG_FILE).is_file():
        return named
    model_width = width_of(json.loads((epath.Path(named) / CONFIG_FILE).read_text()))
    if width is not None and model_width != width:
        raise CheckpointError(
            f"The prompt does not fit {named}",
            got=f"a prompt of width {width}",
            expected=f"the model's width {model_width}",
            fix="name the model that the prompt was trained on as --base_model",
        )
    return named


def write_folder(target: epath.Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder that is whole or not there; in an object store, one that its last file makes whole."""
    at_once = not paths.in_object_store(target)
    folder = json_files.temporary_beside(target) if at_once else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if at_once:
            folder.rename(target)
    except BaseException:
        with contextlib.suppress(Exception):
            folder.rmtree()
        raise
