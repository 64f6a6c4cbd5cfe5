"""The settings of a training step."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import optax

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError, check_count
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.types import Schedule


@dataclasses.dataclass(frozen=True)
class Trainer:
    """How one step is taken.

    Attributes:
      optimizer: Settings of the optimizer.
      learning_rate_fn: step -> learning rate.
      learning_rates_by_regex: Regular expression over whole parameter paths -> `step -> learning rate` of the trainable
        parameters that it matches; `learning_rate_fn` is that of the others.
      num_microbatches: Slices of a batch whose gradients are added up before the update; None means the whole batch.
    """

    optimizer: Adafactor
    learning_rate_fn: Schedule
    num_microbatches: int | None = None
    learning_rates_by_regex: Mapping[str, Schedule] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the number of microbatches and the form of the learning rates."""
        check_count(
            "trainer.Trainer.num_microbatches", self.num_microbatches, "slices", none_means="one"
        )
        for regex, schedule in self.learning_rates_by_regex.items():
            try:
                re.compile(regex)
                is_right = callable(schedule)
            except (re.error, TypeError):
                is_right = False
            if not is_right:
                raise ConfigError(
                    "trainer.Trainer.learning_rates_by_regex",
                    got={regex: schedule},
                    expected="regular expressions over parameter paths, each with what makes a learning rate",
                    fix="write it as {'.*/prompt/.*': @prompt/utils.create_learning_rate_scheduler()}",
                )

    def check_paths(self, trainable: Iterable[str]) -> None:
        """Raises ConfigError unless each regular expression has parameters, and no parameter has two of them.

        Args:
          trainable: Paths of the trainable parameters.
        """
        of_path: dict[str, list[str]] = {path: [] for path in trainable}
        for regex in self.learning_rates_by_regex:
            matched = list(filter(tree.match_any([regex]), of_path))
            if not matched:
                raise ConfigError(
                    "trainer.Trainer.learning_rates_by_regex matches no trainable parameter",
                    got=regex,
                    expected=f"an expression that matches one of {', '.join(sorted(of_path)[:5])}",
                    fix="correct the expression, or leave it out",
                )
            for path in matched:
                of_path[path].append(regex)
        for path, regexes in of_path.items():
            if len(regexes) > 1:
                raise ConfigError(
                    f"trainer.Trainer.learning_rates_by_regex matches {path} more than once",
                    got=regexes,
                    expected="one expression for a parameter at most",
                    fix="correct one of the two",
                )

    def make_tx(self) -> optax.GradientTransformation:
        """Returns the optimizer of the trainable parameters (`Adafactor.make`)."""
        return self.optimizer.make(self.learning_rate_fn, self.learning_rates_by_regex)
