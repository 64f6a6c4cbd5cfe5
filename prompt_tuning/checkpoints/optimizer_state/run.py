"""Adafactor's second moments in a checkpoint of this program, for a run that goes on from another one's."""

from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints.formats.run_source import RunSource
from prompt_tuning.checkpoints.optimizer_state.t5x import SLOTS
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError

_STATE = "opt_state/"


class RunOptimizerState:
    """The optimizer state of a run of this program.

    Args:
      source: The checkpoint.

    Attributes:
      path: Where it is.
      step: Updates that the optimizer has counted: those of the run, and those that it started with itself.
    """

    def __init__(self, source: RunSource):
        """Reads the index, but no array."""
        self.path = source.path
        self.step = (source.step or 0) + int(source.metadata.get("restored_step") or 0)
        self._params = {path: shape for path, (shape, _) in source.shapes().items()}
        self._state = source.state
        leaves = self._state.shapes()
        self._slots = {
            (path, slot): (name, leaves[name][0])
            for name in leaves
            if name.startswith(_STATE)
            for slot in SLOTS
            for _, found, path in [name.partition(f"/{slot}/")]
            if found
        }

    def covers(self, path: str, shape: Sequence[int]) -> bool:
        """Returns whether there are moments for a parameter of the model, which must have the run's layout."""
        return self._params.get(path) == tuple(shape) and all(
            (path, slot) in self._slots for slot in SLOTS
        )

    def read_slot(
        self, path: str, shape: Sequence[int], slot: str, slot_shape: Sequence[int]
    ) -> np.ndarray:
        """Returns one array of Optax's `FactoredState`.

        Args:
          path: A parameter of the model that `covers` tells of.
          shape: Its shape.
          slot: "v", "v_row" or "v_col".
          slot_shape: Shape of the slot.

        Raises:
          CheckpointError: If the run factored its moments otherwise.
        """
        name, stored = self._slots[path, slot]
        if stored != tuple(slot_shape):
            raise CheckpointError(
                f"The optimizer state of {path} in {self.path} is factored otherwise than this run's",
                got=f"{slot} of shape {list(stored)} for a parameter of shape {list(shape)}",
                expected=f"shape {list(slot_shape)}",
                fix="set adafactor.Adafactor.factored and min_dim_size_to_factor as that run did, or bind"
                " adafactor.Adafactor.restored_step = 0 to start with a fresh optimizer",
            )
        return self._state.read(name)


def find_run_optimizer_state(
    source: ParamSource | None, shapes: Mapping[str, Sequence[int]]
) -> RunOptimizerState | None:
    """Returns the optimizer state of a run's checkpoint if it covers every given parameter, else None.

    Args:
      source: The initial checkpoint, of any kind.
      shapes: Parameter path -> shape, of the parameters that are trained and come from `source`.
    """
    if not shapes or not isinstance(source, RunSource):
        return None
    state = RunOptimizerState(source)
    return state if all(state.covers(path, shape) for path, shape in shapes.items()) else None
