"""The state that training changes, and nothing else."""

from typing import Any

import flax.struct

from prompt_tuning.types import PyTree


class TrainState(flax.struct.PyTreeNode):
    """What one update changes; the frozen parameters live beside it, never in it.

    Attributes:
      step: Scalar int32. Updates already applied in this run, from 0.
      trainable: Nested dict of the parameters that learn, float32.
      opt_state: Optax state of `trainable` only.
      rng: Raw key data (uint32) of the run's dropout key. It never changes: a step folds its number into it, so that
        a resumed run draws the same masks.
    """

    step: Any
    trainable: PyTree
    opt_state: Any
    rng: Any
