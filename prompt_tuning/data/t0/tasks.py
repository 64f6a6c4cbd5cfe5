"""T0's tasks and mixtures: `tasks` in Python, `@tasks.t0()` in gin."""

from collections.abc import Iterable, Sequence
from typing import Any

import seqio
from etils import epath

from prompt_tuning.data import home
from prompt_tuning.data.registry import replace_mixture, replace_task
from prompt_tuning.data.t0.data_sets import DataSet, data_sets
from prompt_tuning.data.t0.mixtures import MIXTURES, Member, Mixture
from prompt_tuning.data.t0.p3 import P3DataSource, is_cache, written
from prompt_tuning.data.t0.sources import HubDataSource, JsonlDataSource
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.read import read_templates
from prompt_tuning.data.templates.tasks import SCORE_EVAL, score_task, template_task
from prompt_tuning.errors import ConfigError, DataError, check_choice

# promptsource has no templates for it, so that T0 has none of its tasks.
_WITHOUT_TEMPLATES = frozenset({"jigsaw_toxicity_pred"})
# T0 measures these as GLUE and SuperGLUE are measured; all others as their templates say.
_METRICS = {
    "glue/mrpc": ("f1", "accuracy"),
    "glue/qqp": ("f1", "accuracy"),
    "super_glue/axg": ("accuracy",),
    "super_glue/boolq": ("accuracy",),
    "super_glue/cb": ("mean_multiclass_f1", "accuracy"),
    "super_glue/copa": ("accuracy",),
    "super_glue/multirc": ("accuracy",),
    "super_glue/record": ("squad",),
    "super_glue/rte": ("accuracy",),
    "super_glue/wic": ("accuracy",),
    "super_glue/wsc.fixed": ("accuracy",),
}

# Mixture -> what it was registered with last.
_registered: dict[str, Any] = {}


def tasks(
    mixture: str = "t0_train",
    templates: str | None = None,
    data: str | None = None,
    seed: int = 0,
    skip_missing: bool = False,
) -> str:
    """Registers a mixture of T0's and its tasks, each a template of a data set; an earlier one of the name makes way.

    Inputs do not end with EOS, targets do. A task of `…_score_eval` ranks the answer choices of each example by the sum
    of their tokens' log-likelihoods.

    Args:
      mixture: One of `mixtures.MIXTURES`.
      templates: promptsource's templates, as `read_templates` takes them.
      data: Where the records are: None for Hugging Face `datasets`; a folder with `DATASET[/SUBSET]/SPLIT.jsonl` of
        each data set; or P3's cache, a folder with a folder a task.
      seed: Seed of what templates draw at random, with the record.
      skip_missing: Whether data sets without templates or without records are left out, or refused.

    Returns:
      `mixture`, which `MIXTURE_OR_TASK_NAME = @tasks.t0()` binds.

    Raises:
      ConfigError: The name is unknown, or the templates cannot be read or lack data sets of the mixture.
      DataError: The folder lacks data of the mixture; names all.

    Source: t0/seqio_tasks/tasks.py of bigscience-workshop/t-zero 7a699e3. Differs: a task is measured by no metric that
      its examples cannot have, tasks of a mixture that is evaluated have equal rates, and ranked tasks are measured by
      their accuracy alone.
    """
    check_choice("tasks.t0.mixture", mixture, MIXTURES)
    if templates is None:
        raise ConfigError(
            "T0's templates are not named",
            got=None,
            expected="the folder of promptsource's templates, or its source archive",
            fix="run `pip download promptsource==0.1.0 --no-deps --no-binary :all: --python-version 3.7` and bind"
            " tasks.t0.templates to the file",
        )
    rule = MIXTURES[mixture]
    found = read_templates(templates)
    if not skip_missing:
        _check_templates(rule, [key for key, some in found.items() if some], templates)
    members = list(rule.members(found))
    folder = None if data is None else epath.Path(home.expand(data))
    sources = _sources(members, folder)
    missing = [m for m in members if rule.split not in sources[m].splits]
    if missing and not skip_missing:
        raise _missing_data(missing, rule.split, str(folder))
    members = [member for member in members if member not in missing]
    made_of = (members, str(folder), seed)
    # A config names its mixture in several places; each is a call.
    if _registered.get(mixture) == made_of and mixture in seqio.MixtureRegistry.names():
        return mixture
    _registered[mixture] = made_of
    for member in members:
        replace_task(member.name, make_task(member, sources[member], seed))
        origins.remember(member.name, member.origin)
    replace_mixture(mixture, {member.name: member.rate for member in members})
    return mixture


def _check_templates(rule: Mixture, found: Iterable[Any], templates: str) -> None:
    """Raises ConfigError if data sets of a mixture have no templates; names all."""
    wanted = {d.key: d.path for d in data_sets() if rule.takes(d)}
    missing = [
        path
        for key, path in wanted.items()
        if key not in set(found) and key[0] not in _WITHOUT_TEMPLATES
    ]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(wanted)} data sets of the mixture have no templates in {templates}",
            got=f"none for {', '.join(missing)}",
            expected="templates.yaml of each, as promptsource has them",
            fix="bind tasks.t0.templates to all of promptsource's templates, or tasks.t0.skip_missing = True",
        )


def _sources(
    members: Sequence[Member], folder: epath.Path | None
) -> dict[Member, seqio.DataSource]:
    """The source of each task; tasks of one data set share it, where the records are read."""
    if folder is None:
        hub = {m.data: HubDataSource(m.data) for m in members}
        return {m: hub[m.data] for m in members}
    if is_cache(folder):
        return {
            m: P3DataSource(
                str(folder / m.name.removesuffix(SCORE_EVAL)),
                has_choices=bool(m.template.answer_choices),
            )
            for m in members
        }
    files = {m.data: JsonlDataSource(_files(m.data, folder)) for m in members}
    return {m: files[m.data] for m in members}


def _files(data: DataSet, folder: epath.Path) -> dict[str, str]:
    """The JSONL files of a data set that there are, by split."""
    paths = {split: folder / data.path / f"{name}.jsonl" for split, name in data.splits.items()}
    return {split: str(path) for split, path in paths.items() if path.exists()}


def _missing_data(missing: Sequence[Member], split: str, folder: str) -> DataError:
    """The error for a folder that lacks data of a mixture."""
    names = dict.fromkeys(f"{m.data.path}/{m.data.splits[split]}" for m in missing)
    return DataError(
        f"{folder} lacks records of {len(names)} data sets of the mixture",
        got=f"nothing for {', '.join(names)} ({len(missing)} tasks)",
        expected="DATASET[/SUBSET]/SPLIT.jsonl of each, or P3's folder of each task",
        fix="write or download them, or bind tasks.t0.skip_missing = True",
    )


def make_task(member: Member, source: seqio.DataSource, seed: int) -> seqio.Task:
    """Returns the task of a member, not registered yet.

    Args:
      member: A template of a data set.
      source: Its records, or P3's texts.
      seed: As of `tasks`.
    """
    parts: dict[str, Any] = {"seed": seed, "inputs_end": False}
    if isinstance(source, P3DataSource):
        parts["text"] = written()
    else:
        # The source orders all records at random: nothing is left to shuffle, and nothing to wait for at the start.
        parts["shuffle_buffer_size"] = 1
    if member.is_scored:
        return score_task(member.name, source, member.template, **parts)
    metrics = _METRICS.get(member.data.path)
    return template_task(member.name, source, member.template, metrics=metrics, **parts)
