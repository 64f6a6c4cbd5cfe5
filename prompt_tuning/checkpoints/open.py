"""Opens the checkpoint that lies at a path, of whatever kind it is."""

from absl import logging
from etils import epath

from prompt_tuning import ladder
from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.config import RESTORE_MODES
from prompt_tuning.checkpoints.formats import gemma_flax, huggingface, run, t5x, t5x_orbax, weights
from prompt_tuning.checkpoints.formats.run_source import RunSource
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError, check_choice

_ACCEPTED = (
    "a T5X checkpoint_{step} directory in either of T5X's formats, one that a run of this program left in its"
    " MODEL_DIR, a Hugging Face model (config.json beside its weights), a T5Gemma of DeepMind's Flax code, or what"
    " `prompt-tuning convert` wrote"
)
# What tells a kind of checkpoint, and what reads it; a run's own are read by `RunSource`.
_KINDS = (
    (t5x.is_t5x_checkpoint, t5x.T5XSource),
    (t5x_orbax.is_t5x_orbax_checkpoint, t5x_orbax.T5XOrbaxSource),
    (weights.is_weights, weights.WeightsSource),
    (huggingface.is_huggingface_checkpoint, huggingface.HuggingFaceSource),
    (gemma_flax.is_gemma_flax, gemma_flax.GemmaFlaxSource),
)


def open_source(
    path: epath.PathLike,
    *,
    mode: str = "specific",
    initial_checkpoint: epath.PathLike | None = None,
) -> ParamSource:
    """Opens a checkpoint; reads its index, no array.

    Args:
      path: A T5X checkpoint, one of this program, a Hugging Face model, a T5Gemma of DeepMind's Flax code, or what
        `prompt-tuning convert` wrote; local or gs://. If a checkpoint of this program holds only a prompt, the frozen
        parameters come from the checkpoint it names; if that was moved together with the run, from there. What the
        package ships is found wherever it is installed (`ladder.locate`).
      mode: "specific", or "latest" if `path` is the folder of several: the newest sound one is taken.
      initial_checkpoint: Where the frozen parameters are, if neither holds; only for a checkpoint of this program.

    Raises:
      CheckpointError: If there is nothing at `path`, or no checkpoint; the text says what is there.
      ConfigError: If `mode` is unknown.
    """
    found = _locate(path, mode)
    for is_kind, source in _KINDS:
        if is_kind(found):
            return source(found)
    return RunSource(
        found,
        open_source,
        initial_checkpoint=initial_checkpoint,
        # The newest sound one has been looked for.
        is_checked=mode == "latest",
    )


def _locate(path: epath.PathLike, mode: str) -> epath.Path:
    """The directory of one checkpoint."""
    check_choice("utils.RestoreCheckpointConfig.mode", mode, RESTORE_MODES)
    path = epath.Path(ladder.locate(path))
    if mode == "latest":
        return _newest(path)
    if run.is_run_checkpoint(path) or any(is_kind(path) for is_kind, _ in _KINDS):
        return path
    weights.refuse_unfinished(path)
    steps = paths.steps_in(path)
    if steps:
        newest = path / f"{paths.STEP_PREFIX}{steps[-1]}"
        raise CheckpointError(
            "The path is a folder of checkpoints, not a checkpoint",
            got=str(path),
            expected=f"one of its {len(steps)} checkpoint(s), the newest being {newest}",
            fix=f"use {newest}, or mode = 'latest'",
        )
    fix = "correct the path"
    beside = paths.steps_in(path.parent)
    if not path.exists() and beside:
        newest = path.parent / f"{paths.STEP_PREFIX}{beside[-1]}"
        fix = f"use a step that exists, the newest being {newest}"
    elif paths.in_object_store(path):
        fix = "check the path with `gsutil ls`, and that this machine may read the bucket"
    raise CheckpointError(
        f"No checkpoint at {path}", got=_describe(path), expected=_ACCEPTED, fix=fix
    )


def _newest(path: epath.Path) -> epath.Path:
    """The newest sound checkpoint in a folder of them."""
    for step in reversed(paths.steps_in(path)):
        candidate = path / f"{paths.STEP_PREFIX}{step}"
        damage = None
        if not any(is_kind(candidate) for is_kind, _ in _KINDS):
            damage = run.find_damage(candidate)
        if damage is None:
            return candidate
        logging.warning("Passing over the damaged checkpoint %s: %s", candidate, damage)
    raise CheckpointError(
        f"No checkpoint in {path}",
        got=_describe(path),
        expected="a folder with checkpoint_{step} directories, as mode = 'latest' asks for",
        fix="correct the path, or use mode = 'specific' with the path of one checkpoint",
    )


def _describe(path: epath.Path) -> str:
    """What is at `path`, in a few words."""
    if not path.exists():
        return "nothing there"
    if not path.is_dir():
        return "a file"
    names = paths.shown(p.name for p in path.iterdir())
    return f"a directory with {names}" if names else "an empty directory"
