"""Length and initial value of a prompt."""

import dataclasses

from prompt_tuning.errors import ConfigError
from prompt_tuning.prompts.initializers import PromptInit, Uniform


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """What defines a prompt parameter.

    Attributes:
      length: Rows of the prompt (P). Unit: positions.
      prompt_init: The initial value: a spec for `initializers.build_prompt`, or a function `(rng, shape) -> [P, H]`.

    Raises:
      ConfigError: If `length` is not positive.
    """

    length: int = 100
    prompt_init: PromptInit = Uniform(0.5)

    def __post_init__(self) -> None:
        """Checks the length."""
        if not isinstance(self.length, int) or isinstance(self.length, bool) or self.length < 1:
            raise ConfigError(
                "PROMPT_LENGTH is not a length",
                got=self.length,
                expected="a positive integer",
                fix="set PROMPT_LENGTH = 100, or run a model without a prompt",
            )
