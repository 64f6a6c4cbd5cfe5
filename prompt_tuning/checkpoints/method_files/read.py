"""Reads what a method added to a model, in any form it is kept in."""

import dataclasses

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import hub
from prompt_tuning.checkpoints.formats import run
from prompt_tuning.checkpoints.method_files import folded, kinds
from prompt_tuning.checkpoints.method_files.method_set import ABSENT, METHOD_FILE, MethodSet
from prompt_tuning.checkpoints.prompt_files import matrices, peft, source
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from prompt_tuning.params.names import PROMPT_PATH, is_method, is_prompt


def is_there(path: epath.PathLike, *, step: str | None = None) -> bool:
    """Returns whether `path` names what a method added, and no prompt."""
    named = source.resolve(path, step=step)
    if (named / PROMPT_PATH.replace("/", ".")).is_file():
        return False
    found = _file(named)
    if run.is_run_checkpoint(found):
        names = run.trainable_shapes(run.open_state(found))
        return any(map(is_method, names)) and not any(map(is_prompt, names))
    if peft.is_adapter(found):
        kind = kinds.of_adapter(peft.kind_of(found))
        return kind is not None and not kind.changes_prompt
    if found.suffix == ".safetensors" and found.is_file():
        # A prompt that was tuned beside a method tells of it too.
        return any(
            is_method(name.replace(".", "/")) for name in matrices.read_safetensors(found)[0]
        )
    return found.suffix == ".pt"


def read_set(
    path: epath.PathLike, *, step: str | None = None, setting: str = "METHOD_FILE"
) -> MethodSet:
    """Returns what a method added.

    Args:
      path: A `.safetensors` file that `prompt-tuning export` wrote; a MODEL_DIR, a checkpoint of a run, or a
        `numpy_checkpoints/checkpoint_{step}` folder; T-Few's `.pt`; the directory of a PEFT adapter of a method that
        `kinds.py` lists. Local or gs://, a `.pt` local. Or the name of one on the hub, `hf://owner/name[@revision]`.
      step: A step of a MODEL_DIR, "latest" or "best"; None means "latest".
      setting: The setting that names it, for messages.

    Raises:
      CheckpointError: If there is none at `path`, or it is damaged or of another kind.
      ConfigError: If a step is asked for that is not there, or of something that has no steps.
    """
    found = _file(source.resolve(path, step=step))
    if run.is_run_checkpoint(found):
        read = _of_run(found)
    elif peft.is_adapter(found):
        read = _of_adapter(found)
    elif found.suffix == ".safetensors" and found.is_file():
        tensors, info = matrices.read_safetensors(found)
        params = {name.replace(".", "/"): x.astype(np.float32) for name, x in tensors.items()}
        read = MethodSet(params, info or {}, absent=(info or {}).get(ABSENT))
    elif found.suffix == ".pt":
        (read_torch,) = (kind.read_torch for kind in kinds.KINDS if kind.read_torch)
        read = read_torch(found)
    else:
        raise CheckpointError(
            "No file of a method",
            got=str(found),
            expected="a run, a .safetensors file that was exported, T-Few's .pt, or a PEFT adapter",
            fix=f"correct {setting}",
        )
    strange = [name for name in read.params if not is_method(name)]
    if strange or not read.params:
        raise CheckpointError(
            f"{found} does not hold what a method added, and that alone",
            got=strange[:3],
            expected="parameters of a method",
            fix=f"correct {setting}",
        )
    for name, x in read.params.items():
        matrices.check_numbers(x, found, what=name)
    origin = hub.pinned(path if hub.is_name(path) else found)
    return dataclasses.replace(read, info={**read.info, "exported_from": origin})


def _file(path: epath.Path) -> epath.Path:
    """The file of a folder that a run saved; other paths as they are."""
    if path.name in peft.FILES and peft.is_adapter(path.parent):
        return path.parent
    return path / METHOD_FILE if (path / METHOD_FILE).is_file() else path


def _of_adapter(path: epath.Path) -> MethodSet:
    """What an adapter of PEFT holds."""
    found = peft.kind_of(path)
    kind = kinds.of_adapter(found)
    if kind is None or kind.read_adapter is None:
        types = [kind.peft_type for kind in kinds.KINDS if kind.peft_type]
        raise CheckpointError(
            f"{path} is a PEFT adapter of another kind",
            got=f"peft_type {found}",
            expected=f"peft_type {' or '.join(types)}, of a method that adds parameters to a model",
            fix="use an adapter of such a kind",
        )
    return kind.read_adapter(path)


def _of_run(path: epath.Path) -> MethodSet:
    """What the checkpoint of a run holds, as it is used."""
    run.check_digests(path)
    state = run.open_state(path)
    stored = {p: state.read(run.TRAINABLE + p) for p in run.trainable_shapes(state) if is_method(p)}
    apart, info = layouts.take_apart(stored), run.read_metadata(path)
    used, info = folded.without_networks(apart, info)
    return MethodSet({p: np.asarray(x) for p, x in used.items()}, info)
