"""Stored parameters, whoever wrote them: each kind of checkpoint behind one small interface."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging
from etils import epath

from prompt_tuning.checkpoints import manager, prompt_file, run_format, t5x_format
from prompt_tuning.errors import CheckpointError, ConfigError

_ACCEPTED = (
    "a T5X checkpoint_{step} directory, or one that a run of this program left in its MODEL_DIR"
)


class ParamSource(Protocol):
    """Stored parameters.

    Attributes:
      kind: "t5x" or "run" (this program's own).
      path: Where they are stored.
      step: The step they are from, if known.
      frozen_digest: Digest of the frozen parameters a prompt in here was trained on, if recorded.
    """

    kind: str
    path: epath.Path
    step: int | None
    frozen_digest: str | None

    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter, in either layout."""
        ...

    def read(self, path: str) -> np.ndarray:
        """Returns one parameter of `shapes()`, whole, on the host."""
        ...


class RunSource:
    """The parameters of one checkpoint of a run: its trainable ones, and the frozen ones it started from.

    Args:
      path: A `checkpoint_{step}` directory of this program.

    Raises:
      CheckpointError: If it is damaged, or the checkpoint of its frozen parameters cannot be found.
    """

    kind = "run"

    def __init__(self, path: epath.PathLike):
        """Reads names and shapes, and opens the source of the frozen parameters."""
        self.path = epath.Path(path)
        self.metadata: dict[str, Any] = run_format.read_metadata(self.path)
        self.step: int | None = int(self.path.name.rpartition("_")[2])
        self.frozen_digest: str | None = self.metadata.get("frozen_digest")
        self._trainable = run_format.read_trainable(self.path)
        self._frozen = self._open_frozen()

    def _open_frozen(self) -> ParamSource | None:
        """The source of the frozen parameters; None if everything was trained."""
        if self.frozen_digest is None:
            return None
        initial_path = self.metadata.get("initial_checkpoint_path")
        if not initial_path:
            raise CheckpointError(
                f"The frozen weights of {self.path} are stored nowhere",
                got="random weights (INITIALIZE_FROM_SCRATCH = True)",
                expected="a run that started from a checkpoint",
                fix="train from INITIAL_CHECKPOINT_PATH, or train all weights",
            )
        try:
            return open_source(initial_path)
        except CheckpointError as e:
            raise CheckpointError(
                f"The frozen weights of {self.path} cannot be opened: {e}",
                got=initial_path,
                expected="the checkpoint that the run started from, where it was then",
                fix="put it back; or pass it as the checkpoint and the prompt as PROMPT_FILE",
            ) from e

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of trainable and frozen parameters."""
        frozen = self._frozen.shapes() if self._frozen else {}
        return {**frozen, **self._trainable}

    def read(self, path: str) -> np.ndarray:
        """Returns one parameter: what was trained, where it was trained."""
        if path in self._trainable:
            return run_format.read_leaf(self.path, run_format.TRAINABLE + path)
        assert self._frozen is not None, path
        return self._frozen.read(path)


def open_source(path: epath.PathLike, *, mode: str = "specific") -> ParamSource:
    """Opens a checkpoint; reads its index, no array.

    Args:
      path: A T5X checkpoint, or one of this program; local or gs://. If that one holds only a prompt, the frozen
        parameters come from the checkpoint it names.
      mode: "specific", or "latest" if `path` is the folder of several: the newest sound one is taken.

    Raises:
      CheckpointError: If there is nothing at `path`, or no checkpoint; the text says what is there.
      ConfigError: If `mode` is unknown.
    """
    found = _locate(path, mode)
    return t5x_format.T5XSource(found) if t5x_format.is_t5x_checkpoint(found) else RunSource(found)


def check_exists(path: epath.PathLike, *, mode: str = "specific") -> None:
    """Checks that there is a checkpoint, without opening it; cheap enough to come first.

    Args:
      path: As for `open_source`.
      mode: As for `open_source`.

    Raises:
      CheckpointError: If there is nothing at `path`, or no checkpoint.
      ConfigError: If `mode` is unknown.
    """
    _locate(path, mode)


def recorded_digest(path: epath.PathLike) -> str | None:
    """Returns the digest of the frozen parameters that a prompt file was trained on; None if it does not say.

    Args:
      path: A prompt file.

    Raises:
      CheckpointError: If there is no prompt at `path`.
    """
    _, info = prompt_file.load_prompt(path)
    return (info or {}).get("frozen_digest")


def _is_checkpoint(path: epath.Path) -> bool:
    """Whether `path` is the directory of one checkpoint of a known kind."""
    return t5x_format.is_t5x_checkpoint(path) or run_format.is_run_checkpoint(path)


def _locate(path: epath.PathLike, mode: str) -> epath.Path:
    """The directory of one checkpoint."""
    path = epath.Path(path)
    if mode == "latest":
        return _newest(path)
    if mode != "specific":
        raise ConfigError(
            "Unknown mode of restoring",
            got=mode,
            expected="'specific' or 'latest'",
            fix="bind utils.RestoreCheckpointConfig.mode = 'specific'",
            name=mode,
            candidates=("specific", "latest"),
        )
    if _is_checkpoint(path):
        return path
    steps = manager.steps_in(path)
    if steps:
        newest = path / f"{manager.PREFIX}_{steps[-1]}"
        raise CheckpointError(
            "The path is a folder of checkpoints, not a checkpoint",
            got=str(path),
            expected=f"one of its {len(steps)} checkpoint(s), the newest being {newest}",
            fix=f"use {newest}, or mode = 'latest'",
        )
    raise CheckpointError(
        f"No checkpoint at {path}", got=_describe(path), expected=_ACCEPTED, fix=_suggest(path)
    )


def _newest(path: epath.Path) -> epath.Path:
    """The newest sound checkpoint in a folder of them."""
    for step in reversed(manager.steps_in(path)):
        candidate = path / f"{manager.PREFIX}_{step}"
        if t5x_format.is_t5x_checkpoint(candidate):
            return candidate
        damage = run_format.find_damage(candidate)
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
    names = sorted(p.name for p in path.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"a directory with {', '.join(names[:5])}{more}" if names else "an empty directory"


def _suggest(path: epath.Path) -> str:
    """The step to take when there is no checkpoint at `path`."""
    steps = manager.steps_in(path.parent)
    if not path.exists() and steps:
        return (
            f"use a step that exists, the newest being {path.parent}/{manager.PREFIX}_{steps[-1]}"
        )
    if str(path).startswith("gs://"):
        return "check the path with `gsutil ls`, and that this machine may read the bucket"
    return "correct the path"
