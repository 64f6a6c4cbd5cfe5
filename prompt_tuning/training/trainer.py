"""The settings of a training step."""

import dataclasses

from prompt_tuning.errors import check_count
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.types import Schedule


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How one step is taken.

    Attributes:
      optimizer: Settings of the optimizer.
      learning_rate_fn: step -> learning rate.
      num_microbatches: Slices of a batch whose gradients are added up before the update; None means the whole batch.
    """

    optimizer: Adafactor
    learning_rate_fn: Schedule
    num_microbatches: int | None = None

    def __post_init__(self) -> None:
        """Checks the number of microbatches."""
        check_count(
            "trainer.Trainer.num_microbatches", self.num_microbatches, "slices", none_means="one"
        )
