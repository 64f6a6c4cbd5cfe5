"""Templates such as `question: {question} passage: {passage}`: text with named fields of a record."""

import dataclasses
import string
from collections.abc import Mapping

import tensorflow as tf

from prompt_tuning.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
      text: The template as it was written.
      parts: (literal text, field behind it or None) in order.
    """

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it names, each once, in order."""
        return tuple(dict.fromkeys(field for _, field in self.parts if field is not None))

    def join(self, example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the text with the example's values in place of the fields.

        Args:
          example: String scalars by field.
        """
        pieces = []
        for literal, field in self.parts:
            pieces += [literal] if field is None else [literal, example[field]]
        return tf.strings.join(pieces)


def parse(text: str | None, *, name: str) -> Template:
    """Parses a template.

    Args:
      text: Any text, but None is refused; `{field}` stands for a field of the record, `{{` and `}}` for braces.
      name: The setting that it comes from, for the error.

    Raises:
      ConfigError: It has a lone brace, an empty or formatted field, or no field at all.
    """
    expected = "text with {field} in it, and {{ }} for braces of its own"
    if not isinstance(text, str):
        raise ConfigError(
            f"{name} is not a template", got=text, expected=expected, fix=f"correct {name}"
        )
    parts = []
    try:
        for literal, field, formatted, conversion in string.Formatter().parse(text):
            if field == "" or formatted or conversion:
                raise ValueError("a field is a name and nothing else")
            parts.append((literal, field))
    except ValueError as error:
        raise ConfigError(
            f"{name} cannot be read ({error})", got=text, expected=expected, fix=f"correct {name}"
        ) from error
    template = Template(text, tuple(parts))
    if not template.fields:
        raise ConfigError(f"{name} names no field", got=text, expected=expected, fix="add one")
    return template
