"""Renders of promptsource's templates beside those of the original code: tests/parity/t0.py collects them."""

import functools
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.data.preprocessors import NO_LABEL
from prompt_tuning.data.t0.data_sets import data_sets
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.render import Renderer, fixed_choices
from tests.parity.rows import NotChecked, Row

_ROWS, _EXAMPLES, _TEMPLATES = "renders.jsonl", "render_examples.json", "templates"


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields a row a data set: how many of its renders differ in anything.

    Args:
      directory: The folder of reference numbers.
      vocabulary: Not needed.
    """
    del vocabulary
    missing = [name for name in (_ROWS, _EXAMPLES, _TEMPLATES) if not (directory / name).exists()]
    if missing:
        yield NotChecked(_ROWS, f"the folder has no {', '.join(missing)}")
        return
    templates = {
        (*key, template.name): template
        for key, some in read_templates(str(directory / _TEMPLATES)).items()
        for template in some
    }
    examples = json.loads((directory / _EXAMPLES).read_text(encoding="utf-8"))
    # Only line feeds end a row: the texts hold what `splitlines` would split at.
    lines = (directory / _ROWS).read_text(encoding="utf-8").split("\n")
    rows = sorted((json.loads(line) for line in lines if line), key=_data_set)
    for name, some in itertools.groupby(rows, key=_data_set):
        wrong, num = [], 0
        for row in some:
            num += 1
            key = row["dataset"], row["subset"], row["template_name"]
            found = differences(templates[key], examples[row["example"]], row)
            wrong += [f"row {row['row']}: {', '.join(found)}"] if found else []
        note = f"{num} renders" + (f"; {'; '.join(wrong[:3])}" if wrong else "")
        yield Row(f"t0/renders/{name}", len(wrong), 0, "count", note)


def differences(template: Template, record: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Returns the fields of a reference row that are not as rendered here.

    Args:
      template: The row's template.
      record: Its raw example.
      row: A line of `renders.jsonl`.
    """
    renderer = _renderer(template)
    cut, whole = (renderer(record, seed=row["seed"], truncate=flag) for flag in (True, False))
    is_kept = len(cut.parts) == 2 and cut.parts[0] != ""
    fixed = fixed_choices(template)
    ours = {
        "parts": list(cut.parts),
        "parts_untruncated": list(whole.parts),
        "answer_choices": cut.answer_choices and list(cut.answer_choices),
        "fixed_answer_choices": fixed and list(fixed),
        "t0_kept": is_kept,
        "t0_targets": (cut.parts[1] or NO_LABEL) if is_kept else None,
        "template_id": template.id,
        "original_task": template.original_task,
        "choices_in_prompt": template.choices_in_prompt,
        "metrics": list(template.metrics),
    }
    parts = row.get("parts") or [row["inputs"], row["targets"]]
    theirs = {**row, "parts": parts, "parts_untruncated": row["parts_untruncated"] or parts}
    wrong = [name for name, value in ours.items() if value != theirs[name]]
    # ANLI's rounds are tasks of their own, which a row does not tell apart.
    key = row["dataset"], row["subset"]
    names = [data.task_name(template.name) for data in data_sets() if data.key == key]
    return wrong if row["t0_task"] in names else [*wrong, "t0_task"]


@functools.lru_cache(maxsize=1024)
def _renderer(template: Template) -> Renderer:
    return Renderer(template)


def _data_set(row: Mapping[str, Any]) -> str:
    """Name of a row's data set, with its subset."""
    return "/".join(filter(None, [row["dataset"], row["subset"]]))
