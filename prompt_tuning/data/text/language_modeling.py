"""Tasks of language modelling: a source of documents and an objective."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import seqio

from prompt_tuning.data.registry import add_task, make_task, replace_task
from prompt_tuning.data.sources import files_by_split
from prompt_tuning.data.text import objectives
from prompt_tuning.data.text.objectives import Objective
from prompt_tuning.data.text.text_sources import TextFilesDataSource
from prompt_tuning.errors import check_choice

OBJECTIVES: Mapping[str, Objective] = {
    "prefix_lm": objectives.prefix_lm,
    "span_corruption": objectives.span_corruption,
    "iid_denoising": objectives.iid_denoising,
    "text_infilling": objectives.text_infilling,
    "token_deletion": objectives.token_deletion,
}
# Documents on which the texts of two tasks are compared.
_PROBE = [{"text": "one document"}, {"text": " Ünïcode and  spaces \n"}]

Patterns = str | Sequence[str]


def register(name: str, *, source: seqio.DataSource, objective: str) -> seqio.Task:
    """Registers a task of language modelling, unless the name exists with the same text.

    A user may also import `t5.data.tasks`, which holds some of the same names.

    Args:
      name: The task's name.
      source: Its documents, {"text": string}.
      objective: A key of `OBJECTIVES`.

    Returns:
      The registered task; it has no metrics of decoded text, only the loss and accuracy of teacher forcing.

    Raises:
      DataError: The name is taken by a task with other text.
    """
    return add_task(_make_task(name, source, OBJECTIVES[objective]), _PROBE)


def from_text_files(
    name: str,
    *,
    objective: str = "prefix_lm",
    train: Patterns | None = None,
    validation: Patterns | None = None,
    text_field: str = "text",
) -> str:
    """Registers a task that reads text of one's own; nothing is read before a dataset is built.

    Called again with the same name, it replaces what it registered before.

    Args:
      name: The task's name, also of its TensorBoard runs.
      objective: `prefix_lm` (LM adaptation), `span_corruption`, `iid_denoising`, `text_infilling` or
        `token_deletion`.
      train: Files of the split: paths or globs of `*.txt` (one document a line) and `*.jsonl` (one object a line),
        each also with `.gz`; None where there is no such split.
      validation: Files of the split.
      text_field: Where JSON objects hold their text.

    Returns:
      `name`, which `MIXTURE_OR_TASK_NAME = @tasks.from_text_files()` binds.

    Raises:
      ConfigError: The objective, the name or the files are wrong.
    """
    check_choice("tasks.from_text_files.objective", objective, OBJECTIVES)
    patterns = files_by_split({"train": train, "validation": validation})
    source = TextFilesDataSource(patterns, text_field)
    replace_task(name, _make_task(name, source, OBJECTIVES[objective]))
    return name


def _make_task(name: str, source: seqio.DataSource, objective: Objective) -> seqio.Task:
    """Returns the task that tokenizes documents and applies the objective, in T5's order."""
    key_map = {"inputs": None, "targets": "text"}
    to_text: Any = functools.partial(seqio.preprocessors.rekey, key_map=key_map)
    return make_task(name, source=source, to_text=to_text, behind_cache=[objective])
