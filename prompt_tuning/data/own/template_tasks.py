"""A user's files written by several templates: a task each, its ranked form, and their mixtures."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from prompt_tuning.data import columns, lines, records
from prompt_tuning.data.columns import Columns
from prompt_tuning.data.registry import replace_mixture, replace_task
from prompt_tuning.data.sources import RecordFilesDataSource
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.check import check_record
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.render import Renderer, fixed_choices
from prompt_tuning.data.templates.tasks import RECORD, SCORE_EVAL, score_task, template_task
from prompt_tuning.errors import ConfigError, PromptTuningError


def register(
    name: str,
    files: Mapping[str, Sequence[str]],
    templates: str,
    metrics: Sequence[Any] | None,
) -> None:
    """Registers the task `{name}_{template}` of each template, and their mixture `{name}`.

    Those with answer choices also get `{name}_{template}_score_eval`, without a training split, which ranks the
    choices; their mixture is `{name}_score_eval`.

    Args:
      name: Of the mixture.
      files: Paths of each split.
      templates: Templates of one data set, as `read_templates` takes them.
      metrics: Names of metrics; None takes those of each template, and accuracy where it has none.

    Raises:
      ConfigError: The templates cannot be read, one of them is no program, or two have names that are too alike.
    """
    tasks: dict[str, Template] = {}
    for template in _of_one(templates):
        # What is no program is an error now, and not when the first record comes.
        Renderer(template)
        task_name = template.task_name(name)
        if task_name in tasks:
            raise ConfigError(
                f"{template} has the task's name of another",
                got=task_name,
                expected="names that differ in more than blanks and signs",
                fix="rename the template",
            )
        tasks[task_name] = template
    evaluated = {split: paths for split, paths in files.items() if split != "train"}
    ranked = []
    # What stood under the name before, without templates.
    replace_task(name, None)
    for task_name, template in tasks.items():
        fmt = RecordsFormat(template)
        named = metrics if metrics is not None or template.metrics else ("accuracy",)
        source = RecordFilesDataSource(files, fmt)
        made = [template_task(task_name, source, template, metrics=named)]
        if template.answer_choices and evaluated:
            source = RecordFilesDataSource(evaluated, fmt)
            made.append(score_task(f"{task_name}{SCORE_EVAL}", source, template))
            ranked.append(made[-1].name)
        for task in made:
            is_ranked = task.name in ranked
            replace_task(task.name, task, () if is_ranked else fixed_choices(template) or ())
            origins.remember(task.name, origins.Origin(name, name, template.name))
    replace_mixture(name, dict.fromkeys(tasks, 1.0))
    if ranked:
        replace_mixture(f"{name}{SCORE_EVAL}", dict.fromkeys(ranked, 1.0))


@dataclasses.dataclass(frozen=True)
class RecordsFormat:
    """Records of any form, each of which a template has been tried on.

    Attributes:
      template: The template.
    """

    template: Template

    def read(self, paths: Sequence[str], split: str) -> Columns:
        """Returns {"record": JSON text} of every record.

        Args:
          paths: Files of a split.
          split: Their split; in `test` a template may make no targets.

        Raises:
          DataError: A file is malformed, or the template does not make inputs and targets of a record, the targets one
            of the choices; names file and line of the record, and the template.
        """
        renderer = Renderer(self.template)
        fields = sorted(renderer.fields)
        found = [
            item
            for path in paths
            for item in records.read_records(
                epath.Path(path), optional=[*fields, *records.ID_FIELDS]
            )
        ]
        records.check_id_fields(found)
        rows = []
        for where, record in found:
            try:
                rendered = check_record(renderer, record, seed=0, has_label=split != "test")
                for part, text in zip(("inputs", "targets"), rendered.parts, strict=True):
                    lines.check_text(text, part, where=str(self.template))
            except PromptTuningError as error:
                error.args = (f"{where}: {error}",)
                raise
            rows.append({RECORD: json.dumps(record, ensure_ascii=False)})
        return columns.from_rows(rows)


def _of_one(templates: str) -> Sequence[Template]:
    """Returns the templates of the one data set that they are for."""
    found = read_templates(templates)
    if len(found) > 1:
        raise ConfigError(
            "The templates are those of several data sets",
            got=f"{len(found)} in {templates}",
            expected="one YAML file, or a folder of one data set",
            fix="name the file of the data set whose fields your files have",
        )
    return next(iter(found.values()))
