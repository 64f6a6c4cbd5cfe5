"""What stands for a whole benchmark: averages over SuperGLUE and GLUE, and SuperGLUE's files to submit."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import seqio
from absl import logging
from etils import epath

from prompt_tuning.data import context, ranking
from prompt_tuning.data.benchmarks import pronouns
from prompt_tuning.data.postprocessors import label_index
from prompt_tuning.data.text import sentinel_targets
from prompt_tuning.data.verbalizers import get_verbalizers
from prompt_tuning.errors import DataError

# Short name of a task -> the leaderboard's name of its file.
FILES = {
    "boolq": "BoolQ",
    "cb": "CB",
    "copa": "COPA",
    "multirc": "MultiRC",
    "record": "ReCoRD",
    "rte": "RTE",
    "wic": "WiC",
    "wsc": "WSC",
    "axb": "AX-b",
    "axg": "AX-g",
}
_DIAGNOSTICS = ("axb", "axg")
_FORM = rf"(?:_examples|{ranking.SUFFIX})?(?:{sentinel_targets.SUFFIX})?"
_NAME = re.compile(rf"super_glue_({'|'.join(FILES)})_v102(?:_simple_eval)?{_FORM}$")
# The two dev sets of MNLI make up one task.
_GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli_matched", "mnli_mismatched", "qnli", "rte")
_GLUE_NAME = re.compile(rf"(?<!super_)glue_({'|'.join(_GLUE)})_v(?:002|200){_FORM}$")
# Names among the results of an evaluation that stand for no task.
SUPER_GLUE_AVERAGE = "super_glue_average"
GLUE_AVERAGE = "glue_average"


def short_name(task_name: str) -> str | None:
    """Returns the name of a SuperGLUE task in `FILES`, whatever its form; None for other tasks."""
    match = _NAME.search(task_name)
    return match.group(1) if match else None


def takes(task_name: str) -> bool:
    """Returns whether predictions for a task can be submitted; a ranked one has several rows an example.

    Args:
      task_name: Any task.
    """
    is_ranked = task_name.removesuffix(sentinel_targets.SUFFIX).endswith(ranking.SUFFIX)
    return short_name(task_name) is not None and not is_ranked


def averages(results: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Returns the mean over a benchmark's tasks of each task's mean over its metrics, in percent.

    Args:
      results: `{task: {metric: value}}`; tasks of no benchmark and the diagnostics do not count.

    Returns:
      `{"super_glue_average": {"average": mean}}` where all eight tasks are there, `{"glue_average": …}` where GLUE's
      eight are: those without WNLI, which T5 leaves out, and MNLI as the mean over both its dev sets.

    Source: Lester et al. 2021, section 3, as the leaderboards do. Differs: WNLI counts on GLUE's.
    """
    super_glue = _means(results, _NAME)
    for name in _DIAGNOSTICS:
        super_glue.pop(name, None)
    found: dict[str, dict[str, float]] = {}
    if len(super_glue) == len(FILES) - len(_DIAGNOSTICS):
        found[SUPER_GLUE_AVERAGE] = {"average": float(np.mean(list(super_glue.values())))}
    glue = _means(results, _GLUE_NAME)
    if len(glue) == len(_GLUE):
        mnli = (glue.pop("mnli_matched") + glue.pop("mnli_mismatched")) / 2
        found[GLUE_AVERAGE] = {"average": float(np.mean([mnli, *glue.values()]))}
    return found


def _means(
    results: Mapping[str, Mapping[str, float]], pattern: re.Pattern[str]
) -> dict[str, float]:
    """Returns the mean over metrics by the short name of a task, for tasks that a pattern knows."""
    return {
        match.group(1): float(np.mean(list(metrics.values())))
        for task, metrics in results.items()
        if metrics and (match := pattern.search(task))
    }


def write_predictions(
    task_name: str,
    texts: Iterable[str],
    folder: str,
    *,
    split: str = "test",
    data_dir: str | None = None,
) -> str:
    """Writes what a model answered in the leaderboard's format.

    An answer that is no label counts as the first class, since every example needs one; how many, is logged.

    Args:
      task_name: A SuperGLUE task, in any form.
      texts: The model's answers, in the order of the split.
      folder: Where the file goes.
      split: The split that was answered.
      data_dir: The run's folder of original files; None for TensorFlow Datasets.

    Returns:
      The path of the file, `{folder}/BoolQ.jsonl` and so on.

    Raises:
      DataError: The task is not one of SuperGLUE or is a ranked one, or there are not as many answers as examples.
    """
    name = short_name(task_name)
    if name is None or not takes(task_name):
        raise DataError(
            "The leaderboard has no file for this task",
            got=task_name,
            expected=f"a SuperGLUE task that is decoded: {', '.join(FILES)}",
            fix="name such a task",
        )
    task = seqio.TaskRegistry.get(task_name)
    with context.overriding(data_dir=data_dir):
        ds = task.preprocessors[0](task.source.get_dataset(split, shuffle=False))
        examples = list(ds.as_numpy_iterator())
    answers = list(texts)
    if task_name.endswith(sentinel_targets.SUFFIX):
        answers = [sentinel_targets.without_sentinel(text) for text in answers]
        task_name = task_name.removesuffix(sentinel_targets.SUFFIX)
    if len(answers) != len(examples):
        raise DataError(
            f"The answers are not those of split {split!r} of {task_name!r}",
            got=f"{len(answers)} answers",
            expected=f"{len(examples)} answers, one an example",
            fix="join the answers of all shards, in their order",
        )
    path = epath.Path(folder) / f"{FILES[name]}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = _rows(name, task_name, examples, answers)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return str(path)


def _rows(
    name: str, task_name: str, examples: list[dict[str, Any]], answers: list[str]
) -> Iterator[dict[str, Any]]:
    """Yields the lines of a task's file."""
    if name == "record":
        entities = {int(e["idx/query"]): a for e, a in zip(examples, answers, strict=True)}
        yield from ({"idx": idx, "label": entity} for idx, entity in entities.items())
        return
    if name == "wsc":
        for example, answer in zip(examples, answers, strict=True):
            target = {"targets_pretokenized": example["targets"]}
            is_named = pronouns.names_referent(answer, example=target) == 1
            yield {"idx": int(example["idx"]), "label": str(is_named)}
        return
    labels = list(get_verbalizers(task_name) or ())
    classes = [label_index(labels)(answer) for answer in answers]
    num_invalid = classes.count(-1)
    if num_invalid:
        logging.warning(
            "%s: %d answers are no label, and count as %s", name, num_invalid, labels[0]
        )
    classes = [max(index, 0) for index in classes]
    if name == "multirc":
        yield from _multirc_rows(examples, classes)
        return
    for example, index in zip(examples, classes, strict=True):
        label: Any = labels[index]
        if name == "copa":
            label = index
        elif name in ("boolq", "wic"):
            label = label.lower()
        yield {"idx": int(example["idx"]), "label": label}


def _multirc_rows(examples: list[dict[str, Any]], classes: list[int]) -> Iterator[dict[str, Any]]:
    """Yields MultiRC's lines: one a passage, with its questions and their answers."""
    passages: dict[int, dict[int, list[dict[str, int]]]] = {}
    for example, index in zip(examples, classes, strict=True):
        paragraph, question, answer = (
            int(example[f"idx/{part}"]) for part in ("paragraph", "question", "answer")
        )
        questions = passages.setdefault(paragraph, {})
        questions.setdefault(question, []).append({"idx": answer, "label": index})
    for paragraph, questions in passages.items():
        listed = [{"idx": idx, "answers": answers} for idx, answers in questions.items()]
        yield {"idx": paragraph, "passage": {"questions": listed}}
