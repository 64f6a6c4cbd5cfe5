"""Checks of templates on records, before a run: what T0 drops silently is a fault of a user's own template."""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.data.lines import shorten
from prompt_tuning.data.preprocessors import NO_LABEL
from prompt_tuning.data.templates.read import Template
from prompt_tuning.data.templates.render import Rendered, Renderer, example_seed
from prompt_tuning.errors import DataError, PromptTuningError


def check_template(
    template: Template, records: Sequence[Mapping[str, Any]], *, seed: int = 0
) -> list[PromptTuningError]:
    """Returns what is wrong with a template that many records were written for, promptsource's say.

    As in T0 a record may be dropped, and may have no label: wrong is what cannot be rendered, reads a field that no
    record has, or comes to more than two parts with every record.

    Args:
      template: The template.
      records: Some of its data set's, as `Renderer` takes them.
      seed: Of what it draws, with the record.

    Returns:
      Errors to raise, one of a kind at most; each names file, template and field.
    """
    try:
        renderer = Renderer(template)
    except PromptTuningError as error:
        return [error]
    columns = {name.replace("-", "_"): None for record in records for name in record}
    missing = sorted(renderer.fields - set(columns))
    if missing and records:
        return [_no_field(template, missing[0], columns)]
    too_many = []
    for record in records:
        try:
            rendered = renderer(record, seed=example_seed(seed, record))
        except PromptTuningError as error:
            return [error]
        if len(rendered.parts) > 2:
            too_many.append(_not_two(template, rendered))
    return too_many[:1] if len(too_many) == len(records) else []


def check_record(
    renderer: Renderer, record: Mapping[str, Any], *, seed: int, has_label: bool
) -> Rendered:
    """Returns what a user's own template makes of a record of theirs, of which nothing is dropped silently.

    Args:
      renderer: Of the template.
      record: The record.
      seed: Of what the template draws.
      has_label: Whether the record must have targets.

    Returns:
      Two parts; the targets are `<NO LABEL>` where they are empty and may be.

    Raises:
      DataError: The template reads a field that the record does not have, comes to other than two parts, to empty
        inputs or targets, or to targets that are none of its answer choices; names file, template and field.
    """
    template = renderer.template
    columns = {name.replace("-", "_"): None for name in record}
    missing = sorted(renderer.fields - set(columns))
    if missing:
        raise _no_field(template, missing[0], columns)
    rendered = renderer(record, seed=seed)
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


def _no_field(template: Template, name: str, columns: Mapping[str, Any]) -> DataError:
    """The error for a template that reads what no record has."""
    return DataError(
        f"{template} names a field that is not there",
        got=name,
        expected=f"one of {', '.join(columns)}",
        fix="correct the name, or add the field to the records",
        name=name,
        candidates=columns,
    )


def _not_two(template: Template, rendered: Rendered) -> DataError:
    """The error for a template that makes something else than inputs and targets."""
    return DataError(
        f"{template}: jinja splits in {len(rendered.parts)}",
        got=shorten(" ||| ".join(rendered.parts)),
        expected="two parts, inputs and targets, with `|||` between them",
        fix="correct jinja",
    )
