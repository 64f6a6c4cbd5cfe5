"""Reads a prompt in any form it is kept in, and what is recorded of it."""

from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints import hub, json_files
from prompt_tuning.checkpoints.paths import STEP_PREFIX, steps_in
from prompt_tuning.checkpoints.prompt_files import matrices, peft
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError, unreadable

# What a run leaves in MODEL_DIR, beside its checkpoints: the prompt of every step that was saved.
FOLDER = "numpy_checkpoints"
_SAFETENSORS = ".safetensors"
# In the JSON file beside a prompt: the SHA-256 of the prompt's file.
DIGEST = "content (SHA-256)"
# How the name of the one prompt in a folder ends: the parameter's path with dots, or a file of the reader's own.
_PROMPT_NAMES = (".prompt", ".npy")


def load_prompt(
    path: epath.PathLike, *, setting: str = "PROMPT_FILE", width: int | None = None
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any] | None]:
    """Reads a prompt and what it belongs to.

    Args:
      path: A `.npy` file, with or without suffix; a `numpy_checkpoints/checkpoint_{step}` folder or the file in it; a
        `.safetensors` file with one matrix; or the directory of a PEFT prompt-tuning adapter. Local or gs://. Or the
        name of one on the hub, `hf://owner/name[@revision]`.
      setting: The setting that names it, for messages.
      width: H of the model; None allows any.

    Returns:
      The prompt [P, H] float32, and what is recorded of it, in the JSON beside a `.npy` file or in the metadata of a
      `.safetensors` file; None if nothing is.

    Raises:
      CheckpointError: If there is no prompt at `path`, it is damaged, of another kind, or not `width` wide; or if what
        is recorded of it is damaged.
    """
    path = hub.local(path)
    if path.name in peft.FILES and peft.is_adapter(path.parent):
        path = path.parent
    # Of a repository that has both, the prompt as it was saved: an adapter may be rescaled.
    if peft.is_adapter(path) and not (path / hub.OWN_FILES[0]).is_file():
        return peft.read_adapter(path, setting=setting, width=width)
    path = _find_file(path, setting)
    if path.suffix == _SAFETENSORS:
        tensors, info = matrices.read_safetensors(path)
        if len(tensors) != 1:
            raise CheckpointError(
                f"{path} holds more or less than one prompt",
                got=sorted(tensors)[:5],
                expected="one tensor",
                fix=f"point {setting} at a file that `prompt-tuning export` wrote",
            )
        (matrix,) = tensors.values()
        prompt = matrices.check_matrix(matrix, path, what="prompt", setting=setting, width=width)
        return prompt, info
    side = path.parent / f"{path.name}.json"
    info = read_info(side) if side.is_file() else None
    # Not of the run, but of the file beside it; a prompt of earlier versions has none.
    digest = None if info is None else info.pop(DIGEST, None)
    if digest is not None and content.of_bytes(path.read_bytes()) != digest:
        raise unreadable(
            path,
            f"content other than {side.name} says ({DIGEST})",
            expected="the prompt that was written",
            fix=f"copy it again, or remove {side.name}, to use it without any check",
        )
    return matrices.read_matrix(path, what="prompt", setting=setting, width=width), info


def read_info(side: epath.Path) -> dict[str, Any]:
    """Returns what the JSON file beside a prompt says; CheckpointError if it is damaged."""
    return json_files.read(
        side,
        expected="the JSON that was written beside the prompt",
        fix="copy it again, or remove it: the prompt is then used without any check",
    )


def _find_file(path: epath.Path, setting: str) -> epath.Path:
    """The file of the prompt, which may be named by its folder."""
    if path.is_file():
        return path
    nearby = []
    if path.is_dir():
        named = [p for p in sorted(path.iterdir()) if p.name.endswith(_PROMPT_NAMES)]
        files = list(filter(content.is_file, named))
        if len(files) == 1:
            return files[0]
        nearby = files
        for folder in (path, path / FOLDER):
            nearby += [folder / f"{STEP_PREFIX}{step}" for step in steps_in(folder)[-1:]]
    raise CheckpointError(
        "No prompt file" if not path.is_dir() else "No prompt file, or several, in the folder",
        got=str(path),
        expected="a .npy or .safetensors file, a numpy_checkpoints/checkpoint_{step} folder, or a PEFT adapter"
        + (f"; for example {nearby[-1]}" if nearby else ""),
        fix=f"correct {setting}; a run leaves its prompts below MODEL_DIR/{FOLDER}",
    )
