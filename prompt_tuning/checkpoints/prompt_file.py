"""Writes prompts as plain NumPy files, with a JSON file beside each that says what they belong to.

`numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt` is a `.npy` file without suffix, as the original
prompt tuning code leaves it. These files are written at every save and never deleted: they are kilobytes.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from prompt_tuning.checkpoints import json_files
from prompt_tuning.prompt_formats import FOLDER, STEP_PREFIX
from prompt_tuning.types import Array


def folder(model_dir: epath.PathLike, step: int) -> epath.Path:
    """Returns the directory of the prompts of `step`."""
    return epath.Path(model_dir) / FOLDER / f"{STEP_PREFIX}{step}"


def save_prompts(
    model_dir: epath.PathLike, step: int, flat_prompts: Mapping[str, Array], info: Mapping[str, Any]
) -> None:
    """Writes each prompt, and `info` beside it, so that a reader sees all files of the step or none.

    Every process calls this; process 0 writes.

    Args:
      model_dir: Output folder of the run.
      step: Updates applied to these prompts.
      flat_prompts: Parameter path -> prompt [P, H].
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
    for path, array in arrays.items():
        name = path.replace("/", ".")
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        json_files.write_atomically(target / name, buffer.getvalue())
        side = {**info, "parameter": path, "shape": list(array.shape), "step": step}
        json_files.write_atomically(target / f"{name}.json", json_files.encode(side))
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
        json_files.write_atomically(
            path, json_files.encode({**json.loads(path.read_text()), **info})
        )


def _to_host(array: Array) -> np.ndarray:
    """The whole array on every host, also if it is spread over several."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if not array.is_fully_replicated:
            return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)
