"""The sizes that the engine compiles and keeps."""

import dataclasses

from prompt_tuning.errors import ConfigError, check_count


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """What is compiled at the start, and how much is kept; nothing is compiled later.

    Attributes:
      slots: Answers that are decoded at once.
      rows: Inputs that are encoded, or scored, at once: a program for each of these numbers and each length.
      input_lengths: Tokens that inputs are padded to; the last is the longest input.
      output_length: Tokens of the longest answer, and of the longest target, EOS included.
      resident_prompts: Prompts on the device; the least recently used makes room. Others wait on the host.
      loaded_prompts: Prompts that are kept, on the device or the host; one more is refused.
      prompt_length: Positions of the longest prompt.
      queue: Requests that may wait; more are refused.

    Raises:
      ConfigError: If a number is out of range.
    """

    slots: int = 32
    rows: tuple[int, ...] = (1, 8)
    input_lengths: tuple[int, ...] = (64, 128, 256, 512)
    output_length: int = 64
    resident_prompts: int = 64
    loaded_prompts: int = 10_000
    prompt_length: int = 100
    queue: int = 256

    def __post_init__(self) -> None:
        """Checks the numbers."""
        units = {
            "slots": "answers",
            "output_length": "tokens",
            "resident_prompts": "prompts",
            "loaded_prompts": "prompts",
            "prompt_length": "positions",
            "queue": "requests",
        }
        for name, unit in units.items():
            check_count(f"serve.Engine.{name}", getattr(self, name), unit)
        for name, unit in {"rows": "inputs", "input_lengths": "tokens"}.items():
            numbers = tuple(getattr(self, name))
            for number in numbers:
                check_count(f"serve.Engine.{name}", number, unit)
            if not numbers or sorted({*numbers}) != [*numbers]:
                raise ConfigError(
                    f"serve.Engine.{name} is no list of sizes",
                    got=numbers,
                    expected="one number or more, from the smallest to the largest",
                    fix="put them in order, each once",
                )
            # Gin gives a list.
            object.__setattr__(self, name, numbers)

    @property
    def longest_input(self) -> int:
        """Tokens of the longest input."""
        return self.input_lengths[-1]
