"""Length and initial value of a prompt."""

import dataclasses

from prompt_tuning.errors import check_count
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
        check_count("PROMPT_LENGTH", self.length, "positions")
