"""promptsource's rules: what parts and answers a template makes of a record.

Source: promptsource v0.1.0, which T0 was trained with. Differs: what a template may do is closed (`sandbox`), and a
render draws from a seed of its own, in the order in which promptsource draws after `random.seed(seed)`.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import meta

from prompt_tuning.data.lines import shorten
from prompt_tuning.data.templates import sandbox
from prompt_tuning.data.templates.read import Template
from prompt_tuning.errors import ConfigError, DataError

SEPARATOR = "|||"
# Stands for a separator inside of a record's text, which divides nothing.
GUARD = "3ed2dface8203c4c9dfb1a5dc58e41e0"
# Characters that every value printed by `{{ }}` is cut to.
TEXT_LENGTH = 2048
CHOICES = "answer_choices"

_ENVIRONMENT = sandbox.Environment()


@dataclasses.dataclass(frozen=True)
class Rendered:
    """What a template makes of a record.

    Attributes:
      parts: Text between separators, stripped: inputs and targets, where the template and the record are as they
        should be.
      answer_choices: Answers, of this record where they depend on it; None where targets are free text.
    """

    parts: tuple[str, ...]
    answer_choices: tuple[str, ...] | None


class Renderer:
    """Renders one template; it is compiled once, and may be used by several threads.

    Args:
      template: The template.

    Attributes:
      template: The template.
      fields: Names that it reads and that only a record can have.

    Raises:
      ConfigError: It does not parse, or has what no template may have.
    """

    def __init__(self, template: Template):
        self.template = template
        self._whole = self._compile("jinja", template.jinja)
        self._choices = None
        if template.answer_choices is not None:
            self._choices = self._compile(CHOICES, template.answer_choices)
        used = {*self._whole.names, *(self._choices.names if self._choices else ())}
        self.fields = frozenset(used - {CHOICES, *_ENVIRONMENT.globals})

    def __call__(self, record: Mapping[str, Any], *, seed: int, truncate: bool = True) -> Rendered:
        """Renders a record.

        Args:
          record: {column: value} of plain values: text, numbers, truth values, None, and lists and dicts of these. A
            column with `-` in its name is called with `_` in the template.
          seed: Of `choice`, which draws as promptsource does after `random.seed(seed)`; see `example_seed`.
          truncate: Whether each value that `{{ }}` prints is cut to 2,048 characters, as T0's tasks have it.

        Raises:
          DataError: The template cannot be rendered with this record; names file, template and field.
        """
        if CHOICES in record:
            raise DataError(
                f"{self.template}: the record has a column that templates have for themselves",
                got=CHOICES,
                expected="another name",
                fix="rename the column",
            )
        values = {
            name.replace("-", "_"): value.replace(SEPARATOR, GUARD)
            if isinstance(value, str)
            else value
            for name, value in record.items()
        }
        program = self._truncated if truncate else self._whole
        draws = sandbox.Draws(seed)
        # In promptsource's order: it compiles the template first, then makes the choices, then renders.
        known = program.draw(draws)
        choices = None
        if self._choices is not None:
            known_choices = self._choices.draw(draws)
            choices = _split(self._run(self._choices, values, draws, known_choices))
        values[CHOICES] = choices and list(choices)
        return Rendered(_split(self._run(program, values, draws, known)), choices)

    @functools.cached_property
    def fixed_choices(self) -> tuple[str, ...] | None:
        """The answers if no record is needed to know them; None where it is, or where targets are free text."""
        if self._choices is None or self._choices.names:
            return None
        draws = sandbox.Draws(0)
        return _split(self._run(self._choices, {}, draws, self._choices.draw(draws)))

    @functools.cached_property
    def _truncated(self) -> "_Program":
        """The program of which each `{{ }}` is cut."""
        cut = f" | string | truncate({TEXT_LENGTH}) }}}}"
        return self._compile("jinja", self.template.jinja.replace("}}", cut))

    def _compile(self, field: str, text: str) -> "_Program":
        """Returns the program of a text; `field` is where it stands in the file."""
        try:
            return _Program(text)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{self.template}: {field} does not parse ({error.message})",
                got=shorten((text.splitlines() or [""])[min(error.lineno, text.count("\n")) - 1]),
                expected="Jinja, with the filters that docs/use/templates.md names",
                fix=f"correct line {error.lineno} of {field}",
            ) from error
        except sandbox.Refused as error:
            raise ConfigError(
                f"{self.template}: {field} does what no template may: {error.message}",
                got=shorten(text),
                expected="text with fields, conditions and loops (docs/use/templates.md)",
                fix=f"write {field} without it",
            ) from error
        # Brackets or conditions that are nested too deeply for Jinja, or for Python.
        except (RecursionError, SyntaxError, MemoryError, ValueError) as error:
            raise ConfigError(
                f"{self.template}: {field} cannot be compiled ({type(error).__name__})",
                got=shorten(text),
                expected="a template that is not nested this deeply",
                fix=f"simplify {field}",
            ) from error

    def _run(
        self,
        program: "_Program",
        values: Mapping[str, Any],
        draws: sandbox.Draws,
        known: Mapping[int, int],
    ) -> str:
        """Returns the text that a program makes; explains what goes wrong."""
        try:
            return program.run(values, draws, known)
        # Whatever a template does wrong comes out as an error of Python's own.
        except Exception as error:
            field = CHOICES if program is self._choices else "jinja"
            raise self._explained(field, error, values) from error

    def _explained(self, field: str, error: Exception, values: Mapping[str, Any]) -> DataError:
        """Returns the error for a record that cannot be rendered."""
        said = shorten(str(error).strip() or type(error).__name__, 200)
        what = f"{self.template}: {field}"
        if isinstance(error, sandbox.TooMuch):
            what += " runs too long, or makes too much text"
            fix = f"shorten the loops of {field}"
        elif isinstance(error, sandbox.Refused):
            what += " does what no template may"
            fix = f"write {field} without it (docs/use/templates.md)"
        elif isinstance(error, jinja2.UndefinedError):
            missing = sorted(self.fields - set(values))
            what += f" reads a field that is not there{f', {missing[0]!r}' if missing else ''}"
            fix = "correct its name"
        else:
            what += f" cannot be rendered ({type(error).__name__})"
            fix = f"correct {field}, or the record"
        missing = next(iter(sorted(self.fields - set(values))), None)
        return DataError(
            what,
            got=said,
            expected=f"the fields {', '.join(sorted(set(values) - {CHOICES}))}",
            fix=fix,
            name=missing,
            candidates=values,
        )


class _Program:
    """A compiled template.

    Attributes:
      names: Variables that it reads and does not set.
      draws: (number of a `choice`, length of what it draws from) of each draw that promptsource makes as it compiles.
    """

    def __init__(self, text: str):
        tree = sandbox.parse(_ENVIRONMENT, text)
        self.names = frozenset(meta.find_undeclared_variables(tree))
        self.draws: tuple[tuple[int, int], ...] = ()
        if any(node.name == "choice" for node in tree.find_all(jinja2.nodes.Filter)):
            folding = sandbox.FoldingEnvironment()
            self.draws = folding.draws_of(sandbox.parse(folding, text))
        self._template = _ENVIRONMENT.from_string(tree)

    def draw(self, draws: sandbox.Draws) -> dict[int, int]:
        """Returns what is known of the draws before the render, by the number of the `choice`."""
        # Of one that was tried several times, the last stands in the program.
        return {number: draws.choice(range(length)) for number, length in self.draws}

    def run(self, values: Mapping[str, Any], draws: sandbox.Draws, known: Mapping[int, int]) -> str:
        """Returns the text made of some values."""
        context: Any = self._template.new_context(dict(values))
        context.draws, context.known = draws, known
        return _ENVIRONMENT.concat(self._template.root_render_func(context))


def _split(text: str) -> tuple[str, ...]:
    """Returns the parts of a rendered text."""
    return tuple(part.replace(GUARD, SEPARATOR).strip() for part in text.split(SEPARATOR))


def fixed_choices(template: Template) -> tuple[str, ...] | None:
    """Returns the answers of a template if no record is needed to know them.

    Args:
      template: The template.

    Returns:
      None where they depend on the record, or where targets are free text.

    Raises:
      ConfigError: They do not parse, or have what no template may have.
      DataError: They cannot be rendered.
    """
    return Renderer(template).fixed_choices


def example_seed(seed: int, record: Mapping[str, Any]) -> int:
    """Returns a seed for `choice` that depends on nothing but a seed and a record.

    Args:
      seed: Of the data set, or of the epoch.
      record: The raw record.
    """
    text = json.dumps([seed, record], sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
