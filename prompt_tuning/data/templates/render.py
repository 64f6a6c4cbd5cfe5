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
from jinja2 import meta, nodes

from prompt_tuning.data.lines import shorten
from prompt_tuning.data.templates import limits, sandbox
from prompt_tuning.data.templates.draws import Draws, draws_of
from prompt_tuning.data.templates.read import Template
from prompt_tuning.errors import ConfigError, DataError

SEPARATOR = "|||"
# Stands for a separator inside of a record's text, which divides nothing.
_GUARD = "3ed2dface8203c4c9dfb1a5dc58e41e0"
# Characters that every value printed by `{{ }}` is cut to.
_TEXT_LENGTH = 2048
# The field of a template, and the name by which its text reads them.
CHOICES = "answer_choices"
_PAGE = "docs/use/templates.md"

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
        cut = f" | string | truncate({_TEXT_LENGTH}) }}}}"
        self._cut = _Program(template, "jinja", template.jinja.replace("}}", cut))
        self._choices = _choices_of(template)
        used = {*self._cut.names, *(self._choices.names if self._choices else ())}
        self.fields = frozenset(used - {CHOICES, *_ENVIRONMENT.globals})

    @functools.cached_property
    def _whole(self) -> "_Program":
        """The program that cuts nothing, which T0's tasks do not need."""
        return _Program(self.template, "jinja", self.template.jinja)

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
            name.replace("-", "_"): value.replace(SEPARATOR, _GUARD)
            if isinstance(value, str)
            else value
            for name, value in record.items()
        }
        program = self._cut if truncate else self._whole
        draws = Draws(seed)
        # In promptsource's order: it compiles the template first, then makes the choices, then renders.
        known = program.draw(draws)
        choices = None if self._choices is None else self._choices.run(values, draws)
        values[CHOICES] = choices and list(choices)
        return Rendered(program.run(values, draws, known), choices)


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
    program = _choices_of(template)
    return None if program is None or program.names else program.run({}, Draws(0))


def example_seed(seed: int, record: Mapping[str, Any]) -> int:
    """Returns a seed for `choice` that depends on nothing but a seed and a record.

    Args:
      seed: Of the data set, or of the epoch.
      record: The raw record.
    """
    text = json.dumps([seed, record], sort_keys=True, ensure_ascii=False, default=str)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


class _Program:
    """A compiled text of a template.

    Args:
      template: The template, for errors.
      field: Where the text stands in its file.
      text: The text.

    Attributes:
      names: Variables that it reads and does not set.

    Raises:
      ConfigError: It does not parse, or has what no template may have.
    """

    def __init__(self, template: Template, field: str, text: str):
        self._where = f"{template}: {field}"
        self._field = field
        try:
            # First as it stands in the file: what is put in to cut values would be in the error.
            sandbox.parse(_ENVIRONMENT, getattr(template, field))
            tree = sandbox.parse(_ENVIRONMENT, text)
            self.names = frozenset(meta.find_undeclared_variables(tree))
            # (number of a `choice`, length of what it draws from), of each draw that promptsource makes as it compiles.
            has_choice = any(node.name == "choice" for node in tree.find_all(nodes.Filter))
            self._draws = draws_of(text) if has_choice else ()
            self._template = _ENVIRONMENT.from_string(tree)
        # Brackets or conditions may be nested too deeply for Jinja, or for Python.
        except (
            *(jinja2.TemplateError, RecursionError, SyntaxError, MemoryError, ValueError),
        ) as error:
            raise self._unusable(error, getattr(template, field)) from error

    def draw(self, draws: Draws) -> dict[int, int]:
        """Returns what is drawn before the program runs: index by the number of the `choice`."""
        # Of one that is tried several times, the last stands in the program.
        return {number: draws.choice(range(length)) for number, length in self._draws}

    def run(
        self, values: Mapping[str, Any], draws: Draws, known: Mapping[int, int] | None = None
    ) -> tuple[str, ...]:
        """Returns the parts of the text made of some values; `known`: what `draw` has returned, if it was called."""
        context: Any = self._template.new_context(dict(values))
        context.draws, context.known = draws, self.draw(draws) if known is None else known
        try:
            text = _ENVIRONMENT.concat(self._template.root_render_func(context))
            # Half of a surrogate pair, from an escape in a template or a record, is nothing that can be tokenized.
            text.encode("utf-8")
        # Whatever a template does wrong comes out as an error of Python's own.
        except Exception as error:
            raise self._failed(error, values) from error
        return tuple(part.replace(_GUARD, SEPARATOR).strip() for part in text.split(SEPARATOR))

    def _unusable(self, error: Exception, text: str) -> ConfigError:
        """Returns the error for a text that is no program; `text`: as it stands in the file."""
        number = getattr(error, "lineno", None) or 1
        got = shorten((text.splitlines()[number - 1 :] or [text])[0].strip())
        if isinstance(error, limits.Refused):
            return ConfigError(
                f"{self._where} does what no template may: {error.message}",
                got=got,
                expected=f"text with fields, conditions and loops ({_PAGE})",
                fix=f"write {self._field} without it",
            )
        if isinstance(error, jinja2.TemplateSyntaxError):
            return ConfigError(
                f"{self._where} does not parse ({error.message})",
                got=got,
                expected=f"Jinja, with the filters of {_PAGE}",
                fix=f"correct line {number} of {self._field}",
            )
        return ConfigError(
            f"{self._where} cannot be compiled ({type(error).__name__})",
            got=got,
            expected="a template that is not nested this deeply",
            fix=f"simplify {self._field}",
        )

    def _failed(self, error: Exception, values: Mapping[str, Any]) -> DataError:
        """Returns the error for a record that cannot be rendered."""
        columns = sorted(set(values) - {CHOICES})
        expected = f"what the fields {', '.join(columns)} allow"
        if isinstance(error, limits.TooMuch):
            what, fix = "runs too long, or makes too much text", f"shorten what {self._field} does"
        elif isinstance(error, limits.Refused):
            what, fix = "does what no template may", f"write {self._field} without it ({_PAGE})"
        elif isinstance(error, jinja2.UndefinedError):
            what, fix = "reads what is not there", "correct its name"
        else:
            what = f"cannot be rendered ({type(error).__name__})"
            fix = f"correct {self._field}, or the record"
        missing = sorted(self.names - set(values) - set(_ENVIRONMENT.globals))
        return DataError(
            f"{self._where} {what}",
            got=shorten(str(error).strip() or type(error).__name__, 200),
            expected=expected,
            fix=fix,
            name=missing[0] if missing else None,
            candidates=columns,
        )


def _choices_of(template: Template) -> _Program | None:
    """Returns the program of a template's answers."""
    text = template.answer_choices
    return None if text is None else _Program(template, CHOICES, text)
