"""Stored parameters, whoever wrote them: each kind of checkpoint behind one small interface."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging
from etils import epath

from prompt_tuning import ladder
from prompt_tuning.checkpoints import manager, paths
from prompt_tuning.checkpoints.formats import huggingface, run, t5x, t5x_orbax, weights
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params import layouts

_ACCEPTED = (
    "a T5X checkpoint_{step} directory in either of T5X's formats, one that a run of this program left in its"
    " MODEL_DIR, a Hugging Face model (config.json beside its weights), or what `prompt-tuning convert` wrote"
)


class ParamSource(Protocol):
    """Stored parameters.

    Attributes:
      kind: "t5x", "run" (this program's own), "huggingface" or "weights" (what `prompt-tuning convert` writes).
      path: Where they are stored.
      step: The step they are from, if known.
      frozen_digest: Digest of the frozen parameters a prompt in here was trained on, if recorded.
      trainable_paths: The parameters that the run trained, in the layout of its model; empty if no run of this program
        wrote them.
      settings: What the checkpoint says about its model beyond shapes, by the names of `T5Config`; None if nothing.
    """

    kind: str
    path: epath.Path
    step: int | None
    frozen_digest: str | None
    trainable_paths: frozenset[str]
    settings: Mapping[str, Any] | None

    def shapes(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter, in either layout."""
        ...

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored: reading a part of one costs a whole one."""
        ...

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter of `shapes()`, or the part of it at `index` (one slice a dimension), on the host.

        Several threads may call it at once.
        """
        ...


class RunSource:
    """The parameters of one checkpoint of a run: its trainable ones, and the frozen ones it started from.

    Args:
      path: A `checkpoint_{step}` directory of this program, under whatever name.
      initial_checkpoint: Where its frozen parameters are; None goes by what the run recorded.

    Attributes:
      metadata: All that the run recorded.
      trainable_regex: The regular expressions by which the run chose what to train, if it recorded them.

    Raises:
      CheckpointError: If it is damaged, or the checkpoint of its frozen parameters cannot be found.
    """

    kind = "run"

    def __init__(self, path: epath.PathLike, *, initial_checkpoint: epath.PathLike | None = None):
        """Reads names and shapes, and opens the source of the frozen parameters."""
        self.path = paths.absolute(path)
        self.metadata: dict[str, Any] = run.read_metadata(self.path)
        self.step: int | None = _step_of(self.path, self.metadata)
        self.frozen_digest: str | None = self.metadata.get("frozen_digest")
        self._trainable = run.read_trainable(self.path)
        self.trainable_paths: frozenset[str] = frozenset(self._trainable)
        regex = self.metadata.get("trainable_regex")
        self.trainable_regex: tuple[str, ...] | None = None if regex is None else tuple(regex)
        self._frozen = self._open_frozen(initial_checkpoint)
        self.settings: Mapping[str, Any] | None = self._frozen.settings if self._frozen else None

    def _open_frozen(self, initial_checkpoint: epath.PathLike | None) -> ParamSource | None:
        """The source of the frozen parameters; None if everything was trained."""
        if self.frozen_digest is None:
            return None
        recorded = self.metadata.get("initial_checkpoint_path")
        if initial_checkpoint:
            places = [paths.absolute(initial_checkpoint)]
        elif recorded:
            places = self._places_of_frozen(recorded)
        else:
            raise CheckpointError(
                f"The frozen weights of {self.path} are stored nowhere",
                got="random weights (INITIALIZE_FROM_SCRATCH = True)",
                expected="a run that started from a checkpoint",
                fix="train from INITIAL_CHECKPOINT_PATH, or train all weights",
            )
        failures = []
        for place in places:
            try:
                return open_source(place)
            except CheckpointError as e:
                failures.append(f"{place}: {e}")
        raise CheckpointError(
            f"The frozen weights of {self.path} cannot be opened",
            got="; ".join(failures),
            expected="the checkpoint that the run started from",
            fix="pass where it is now as initial_checkpoint; or set CHECKPOINT_PATH to it and PROMPT_FILE to the"
            " prompt below MODEL_DIR/numpy_checkpoints",
        )

    def _places_of_frozen(self, recorded: str) -> list[epath.Path]:
        """Where to look: where the run found them, and there as seen from where the run is now."""
        places = [epath.Path(recorded)]
        model_dir = self.metadata.get("model_dir")
        if model_dir:
            moved = paths.moved_along(recorded, model_dir, self.path.parent)
            if moved is not None and moved not in places:
                places.append(moved)
        return places

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of trainable and frozen parameters."""
        frozen = self._frozen.shapes() if self._frozen else {}
        left = {p: leaf for p, leaf in frozen.items() if not self._is_superseded(p, leaf[0])}
        return {**left, **self._trainable}

    def _is_superseded(self, path: str, shape: tuple[int, ...]) -> bool:
        """Whether all of a frozen parameter was trained under its name in the other layout."""
        if layouts.scanned_path(path)[0] in self._trainable:
            return True
        if not layouts.is_stacked(path):
            return False
        num_layers = shape[layouts.LAYERS_AXIS]
        return any(
            all(name in self._trainable for name in names)
            for names in layouts.all_unscanned_paths(path, num_layers)
        )

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        if path in self._trainable:
            return run.read_chunks(self.path, run.TRAINABLE + path)
        assert self._frozen is not None, path
        return self._frozen.chunks(path)

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it: what was trained, where it was trained."""
        if path in self._trainable:
            return run.read_leaf(self.path, run.TRAINABLE + path, index)
        assert self._frozen is not None, path
        return self._frozen.read(path, index)


def open_source(
    path: epath.PathLike,
    *,
    mode: str = "specific",
    initial_checkpoint: epath.PathLike | None = None,
) -> ParamSource:
    """Opens a checkpoint; reads its index, no array.

    Args:
      path: A T5X checkpoint, one of this program, a Hugging Face model, or what `prompt-tuning convert` wrote; local
        or gs://. If a checkpoint of this program holds only a prompt, the frozen parameters come from the checkpoint
        it names; if that was moved together with the run, from there. What the package ships is found wherever it is
        installed (`shipped_files.locate`).
      mode: "specific", or "latest" if `path` is the folder of several: the newest sound one is taken.
      initial_checkpoint: Where the frozen parameters are, if neither holds; only for a checkpoint of this program.

    Raises:
      CheckpointError: If there is nothing at `path`, or no checkpoint; the text says what is there.
      ConfigError: If `mode` is unknown.
    """
    found = _locate(path, mode)
    if t5x.is_t5x_checkpoint(found):
        return t5x.T5XSource(found)
    if t5x_orbax.is_t5x_orbax_checkpoint(found):
        return t5x_orbax.T5XOrbaxSource(found)
    if weights.is_weights(found):
        return weights.WeightsSource(found)
    if huggingface.is_huggingface_checkpoint(found):
        return huggingface.HuggingFaceSource(found)
    return RunSource(found, initial_checkpoint=initial_checkpoint)


def _step_of(path: epath.Path, metadata: Mapping[str, Any]) -> int:
    """The step of a run's checkpoint: as recorded, since its folder may have been renamed; else by its name."""
    recorded = metadata.get("step")
    if isinstance(recorded, int):
        return recorded
    digits = path.name.rpartition("_")[2]
    if digits.isdecimal():
        return int(digits)
    raise CheckpointError(
        f"The step of the checkpoint {path} is unknown",
        got=f"step {recorded!r} in its metadata, and a folder called {path.name}",
        expected=f"a recorded step, or a folder called {paths.STEP_PREFIX}{{step}}",
        fix=f"rename the folder to {paths.STEP_PREFIX}{{step}}",
    )


def _is_checkpoint(path: epath.Path) -> bool:
    """Whether `path` is the directory of one checkpoint of a known kind."""
    kinds = (
        t5x.is_t5x_checkpoint,
        t5x_orbax.is_t5x_orbax_checkpoint,
        run.is_run_checkpoint,
        weights.is_weights,
        huggingface.is_huggingface_checkpoint,
    )
    return any(is_kind(path) for is_kind in kinds)


def _locate(path: epath.PathLike, mode: str) -> epath.Path:
    """The directory of one checkpoint."""
    path = epath.Path(ladder.locate(path))
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
    weights.refuse_unfinished(path)
    steps = manager.steps_in(path)
    if steps:
        newest = path / f"{paths.STEP_PREFIX}{steps[-1]}"
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
        candidate = path / f"{paths.STEP_PREFIX}{step}"
        if t5x.is_t5x_checkpoint(candidate):
            return candidate
        if t5x_orbax.is_t5x_orbax_checkpoint(candidate):
            return candidate
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
    names = sorted(p.name for p in path.iterdir())
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"a directory with {', '.join(names[:5])}{more}" if names else "an empty directory"


def _suggest(path: epath.Path) -> str:
    """The step to take when there is no checkpoint at `path`."""
    steps = manager.steps_in(path.parent)
    if not path.exists() and steps:
        return (
            f"use a step that exists, the newest being {path.parent}/{paths.STEP_PREFIX}{steps[-1]}"
        )
    if str(path).startswith("gs://"):
        return "check the path with `gsutil ls`, and that this machine may read the bucket"
    return "correct the path"
