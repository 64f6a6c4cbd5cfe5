"""The parameters of a run's checkpoint: what it trained, over the frozen ones that it started from."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats import run
from prompt_tuning.checkpoints.formats.arrays import StoredArrays
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts


class RunSource:
    """The parameters of one checkpoint of a run: its trainable ones, and the frozen ones it started from.

    Args:
      path: A `checkpoint_{step}` directory of this program, under whatever name.
      open_source: Opens the checkpoint of its frozen parameters.
      initial_checkpoint: Where they are; None goes by what the run recorded.
      is_checked: Whether somebody has looked already that it is sound.

    Attributes:
      metadata: All that the run recorded.
      state: The leaves of its state, by the names of `run.open_state`.
      trainable_regex: The regular expressions by which the run chose what to train, if it recorded them.

    Raises:
      CheckpointError: If it is damaged, or the checkpoint of its frozen parameters cannot be found.
    """

    kind = "run"

    def __init__(
        self,
        path: epath.PathLike,
        open_source: Callable[[epath.PathLike], ParamSource],
        *,
        initial_checkpoint: epath.PathLike | None = None,
        is_checked: bool = False,
    ):
        """Checks its digests, reads names and shapes, and opens the source of the frozen parameters."""
        self.path = paths.absolute(path)
        if not is_checked:
            run.check_digests(self.path)
        self.metadata: dict[str, Any] = run.read_metadata(self.path)
        recorded = self.metadata.get("step")
        # As recorded, since its folder may have been renamed; else by its name.
        self.step = paths.step_of(recorded if isinstance(recorded, int) else None, self.path.name)
        if self.step is None:
            raise CheckpointError(
                f"The step of the checkpoint {self.path} is unknown",
                got=f"step {recorded!r} in its metadata, and a folder called {self.path.name}",
                expected=f"a recorded step, or a folder called {paths.STEP_PREFIX}{{step}}",
                fix=f"rename the folder to {paths.STEP_PREFIX}{{step}}",
            )
        self.frozen_digest: str | None = self.metadata.get("frozen_digest")
        self.state = run.open_state(self.path)
        trainable = run.trainable_shapes(self.state)
        self.trainable_paths: frozenset[str] = frozenset(trainable)
        regex = self.metadata.get("trainable_regex")
        self.trainable_regex: tuple[str, ...] | None = None if regex is None else tuple(regex)
        frozen = self._open_frozen(open_source, initial_checkpoint)
        self.settings: Mapping[str, Any] | None = frozen.settings if frozen else None
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
        # Path -> what holds it, and by which name.
        self._parts: dict[str, tuple[ParamSource | StoredArrays, str]] = {}
        if frozen is not None:
            for path, leaf in frozen.shapes().items():
                if not self._is_superseded(path, leaf[0]):
                    self._shapes[path], self._parts[path] = leaf, (frozen, path)
        for path, leaf in trainable.items():
            self._shapes[path] = leaf
            self._parts[path] = (self.state, run.TRAINABLE + path)

    def _open_frozen(
        self,
        open_source: Callable[[epath.PathLike], ParamSource],
        initial_checkpoint: epath.PathLike | None,
    ) -> ParamSource | None:
        """The source of the frozen parameters; None if everything was trained."""
        if self.frozen_digest is None:
            return None
        recorded = self.metadata.get("initial_checkpoint_path")
        if initial_checkpoint:
            places = [paths.absolute(initial_checkpoint)]
        elif recorded:
            # Where the run found them, and there as seen from where the run is now.
            places = [epath.Path(recorded)]
            then = self.metadata.get("model_dir")
            moved = paths.moved_along(recorded, then, self.path.parent) if then else None
            if moved not in (None, *places):
                places.append(moved)
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

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of trainable and frozen parameters."""
        return dict(self._shapes)

    def _is_superseded(self, path: str, shape: tuple[int, ...]) -> bool:
        """Whether all of a frozen parameter was trained under its name in the other layout."""
        if layouts.scanned_path(path)[0] in self.trainable_paths:
            return True
        if not layouts.is_stacked(path):
            return False
        num_layers = shape[layouts.LAYERS_AXIS]
        return any(
            all(name in self.trainable_paths for name in names)
            for names in layouts.all_unscanned_paths(path, num_layers)
        )

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        part, name = self._parts[path]
        return part.chunks(name)

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it: what was trained, where it was trained."""
        part, name = self._parts[path]
        return part.read(name, index)
