"""What a template may make of a record: T0 drops some silently, a user's own template may not."""

import json
from collections.abc import Mapping
from typing import Any

from prompt_tuning.data.lines import shorten
from prompt_tuning.data.preprocessors import NO_LABEL
from prompt_tuning.data.templates.read import Template
from prompt_tuning.data.templates.render import SEPARATOR, Rendered, Renderer, example_seed
from prompt_tuning.errors import DataError


def render_record(renderer: Renderer, record: Mapping[str, Any], *, seed: int) -> Rendered:
    """Returns what a template makes of a record that it was written for.

    Args:
      renderer: Of the template.
      record: The record.
      seed: Of what the template draws, with the record.

    Returns:
      One part or two, as T0 has them, which drops the former; more than two where the record's own text divides them.

    Raises:
      DataError: The template cannot be rendered, reads a field that the record does not have, or divides in more than
        two parts; names file, template and field.
    """
    columns = {name.replace("-", "_"): None for name in record}
    missing = sorted(renderer.fields - set(columns))
    if missing:
        raise DataError(
            f"{renderer.template} names a field that is not there",
            got=missing[0],
            expected=f"one of {', '.join(columns)}",
            fix="correct the name, or add the field to the records",
            name=missing[0],
            candidates=columns,
        )
    rendered = renderer(record, seed=example_seed(seed, record))
    if len(rendered.parts) > 2 and SEPARATOR not in json.dumps(record, default=str):
        raise _not_two(renderer.template, rendered)
    return rendered


def check_record(
    renderer: Renderer, record: Mapping[str, Any], *, seed: int, has_label: bool
) -> Rendered:
    """Returns what a user's own template makes of a record of theirs, of which nothing is dropped silently.

    Args:
      renderer: Of the template.
      record: The record.
      seed: Of what the template draws, with the record.
      has_label: Whether the record must have targets.

    Returns:
      Two parts; the targets are `<NO LABEL>` where they are empty and may be.

    Raises:
      DataError: As `render_record`; or the template comes to other than two parts, to empty inputs or targets, or to
        targets that are none of its answer choices.
    """
    template, rendered = renderer.template, render_record(renderer, record, seed=seed)
    if len(rendered.parts) != 2:
        raise _not_two(template, rendered)
    inputs, targets = rendered.parts
    for part, text in (("inputs", inputs), ("targets", targets)):
        if not text and (has_label or part == "inputs"):
            raise DataError(
                f"{template}: jinja makes no {part}",
                got=shorten(str(dict(record))),
                expected=f"some text {'in front of' if part == 'inputs' else 'behind'} `|||`",
                fix="correct jinja, or the record",
            )
    choices = rendered.answer_choices
    if targets and choices is not None and targets not in choices:
        raise DataError(
            f"{template}: the targets that jinja makes are none of answer_choices",
            got=shorten(targets),
            expected=f"one of {', '.join(map(repr, choices))}",
            fix="write {{ answer_choices[…] }} behind `|||`, or correct answer_choices",
        )
    return Rendered((inputs, targets or NO_LABEL), choices)


def _not_two(template: Template, rendered: Rendered) -> DataError:
    """The error for a template that makes something else than inputs and targets."""
    return DataError(
        f"{template}: jinja splits in {len(rendered.parts)}",
        got=shorten(" ||| ".join(rendered.parts)),
        expected="two parts, inputs and targets, with `|||` between them",
        fix="correct jinja",
    )
