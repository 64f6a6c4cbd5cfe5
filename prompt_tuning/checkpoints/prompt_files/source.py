"""The prompt of a run, of a checkpoint or of a file, whichever is named."""

from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints import hub, paths
from prompt_tuning.checkpoints.formats import run, t5x, t5x_orbax
from prompt_tuning.checkpoints.ledger import Ledger
from prompt_tuning.checkpoints.method_files import folded, kinds
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.paths import STEP_PREFIX, steps_in
from prompt_tuning.checkpoints.prompt_files import matrices
from prompt_tuning.checkpoints.prompt_files.read import FOLDER, load_prompt
from prompt_tuning.checkpoints.source import width_recorded
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params.names import PROMPT_PATH, is_added

# The steps that a MODEL_DIR names itself.
LATEST, BEST = "latest", "best"


def read_source(
    source: epath.PathLike, *, step: str | None = None, setting: str = "SOURCE"
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns the prompt [P, H] float32 at a source, and what it belongs to.

    Args:
      source: What the command takes as SOURCE; local, gs:// or hf://.
      step: A step of a MODEL_DIR, "latest" or "best"; None means "latest".
      setting: What names it, for messages.

    Raises:
      CheckpointError: If there is no prompt, or it is damaged.
      ConfigError: If a step is asked for that is not there, or of something that has no steps.
    """
    path = resolve(source, step=step)
    info: dict[str, Any]
    if run.is_run_checkpoint(path):
        run.check_digests(path)
        state = run.open_state(path)
        names = run.trainable_shapes(state)
        _check_place(path, names)
        added = {name: state.read(run.TRAINABLE + name) for name in filter(is_added, names)}
        used, info = folded.as_used(added, run.read_metadata(path))
        prompt = np.asarray(used[PROMPT_PATH])
    elif t5x.is_t5x_checkpoint(path) or t5x_orbax.is_t5x_orbax_checkpoint(path):
        checkpoint = open_source(path)
        _check_place(path, checkpoint.shapes())
        prompt = checkpoint.read(PROMPT_PATH)
        info = {"step": checkpoint.step}
    else:
        prompt, recorded = load_prompt(path, setting=setting)
        info = recorded or {}
    model = info.get("model")
    width = width_recorded(model) if isinstance(model, dict) else None
    prompt = matrices.check_matrix(prompt, path, what="prompt", setting=setting, width=width)
    return prompt, {**info, "exported_from": hub.pinned(source if hub.is_name(source) else path)}


def read_plain(
    source: epath.PathLike, *, step: str | None = None, setting: str = "SOURCE"
) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns what `read_source` does, of a prompt that is all that stood in front of inputs.

    Raises:
      CheckpointError: As `read_source`; or if a method made something else of the prompt.
    """
    prompt, info = read_source(source, step=step, setting=setting)
    if changing := kinds.changing_prompt(info):
        raise CheckpointError(
            "The prompt is a part of what stood in front of inputs",
            got=f"{setting} {source} of methods.{changing[0]}",
            expected="a plain prompt",
            fix="name what `prompt-tuning export` makes of it (--task=NAME where it tells tasks apart)",
        )
    return prompt, info


def resolve(source: epath.PathLike, *, step: str | None = None) -> epath.Path:
    """Returns the folder of a step of a MODEL_DIR that saved some, or of what the hub has; any other path as it is.

    Args:
      source: What the command takes as SOURCE; local, gs:// or hf://.
      step: See `read_source`.

    Raises:
      ConfigError: If a step is asked for that is not there, or of something that has no steps.
      CheckpointError: If the run has saved none.
    """
    path = paths.absolute(hub.local(source))
    folder = path / FOLDER
    if folder.is_dir():
        return folder / f"{STEP_PREFIX}{_choose_step(path, folder, step, 'prompt')}"
    _check_no_step(path, step, f"a MODEL_DIR that holds {FOLDER}")
    return path


def resolve_checkpoint(source: epath.PathLike, *, step: str | None = None) -> epath.Path:
    """Returns the checkpoint of a step of a MODEL_DIR that holds some; any other path as it is.

    Args:
      source: A MODEL_DIR, or any checkpoint; local or gs://.
      step: See `read_source`.

    Raises:
      ConfigError: If a step is asked for that is not there, or of something that has no steps.
    """
    path = paths.absolute(source)
    if steps_in(path):
        return path / f"{STEP_PREFIX}{_choose_step(path, path, step, 'checkpoint')}"
    _check_no_step(path, step, "a MODEL_DIR that holds checkpoints")
    return path


def _check_no_step(path: epath.Path, step: str | None, expected: str) -> None:
    """Raises ConfigError if a step is asked for of something that has none."""
    if step is not None:
        raise ConfigError(
            "--step chooses among the prompts of a run",
            got=f"--step={step} of {path}",
            expected=expected,
            fix="leave --step out, or name the MODEL_DIR",
        )


def _choose_step(model_dir: epath.Path, folder: epath.Path, step: str | None, what: str) -> int:
    """The step that --step means, of those that a run saved `what` of."""
    steps = steps_in(folder)
    if not steps:
        raise CheckpointError(
            f"The run has saved no {what}",
            got=f"nothing in {folder}",
            expected="at least one checkpoint_{step} folder",
            fix="let the run reach its first save",
        )
    if step in (None, LATEST):
        return steps[-1]
    chosen = _best_step(model_dir) if step == BEST else step
    if str(chosen) not in map(str, steps):
        raise ConfigError(
            f"The run has no {what} of this step",
            got=f"--step={chosen}",
            expected=f"{LATEST}, {BEST}, or one of {steps[-10:]}",
            fix="name a step that was saved",
        )
    return int(chosen)


def _best_step(model_dir: epath.Path) -> int:
    """The step that the run's ledger says is best by its dev metric."""
    ledger = Ledger(model_dir)
    steps = ledger.steps()
    if len(steps) != 1:
        raise ConfigError(
            "There is no one best step",
            got={name: entry["step"] for name, entry in ledger.best.items()},
            expected=f"one best step in {ledger.path}",
            fix="name the step by its number",
        )
    return steps.pop()


def _check_place(path: epath.Path, shapes: Any) -> None:
    """Raises CheckpointError unless a checkpoint holds one prompt, in front of the encoder's input."""
    found = [name for name in shapes if "/prompt/" in name]
    if found != [PROMPT_PATH]:
        raise CheckpointError(
            f"The checkpoint {path} holds no prompt"
            if not found
            else "This prompt has another place",
            got=found,
            expected=f"one prompt, {PROMPT_PATH}",
            fix="name a checkpoint of a run that tuned one prompt for the encoder",
        )
