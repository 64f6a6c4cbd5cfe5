"""The synthetic suite in templates, and T0 in miniature on it; no download.

- `synthetic_{task}_{template}`: a task of `prompt_tuning.tasks.synthetic` as a template of this package writes it
  (`prompt_tuning/data/templates/assets/synthetic`).
- `…_score_eval` of those with answer choices: the same by ranking these, without a training split.
- The mixtures `synthetic_t0_train`: all templates of all tasks but `HELD_OUT`; `synthetic_t0_train_score_eval` and
  `synthetic_t0_eval_score_eval`: the ranked ones of these tasks, and of the tasks held out.

As in T0, every template of a task is drawn as often as any other, and inputs do not end with EOS.
"""

import re
from collections.abc import Iterator

import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import columns
from prompt_tuning.data.registry import replace_mixture, replace_task
from prompt_tuning.data.synthetic import benchmark
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.origins import Origin
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.tasks import SCORE_EVAL, score_task, template_task

HELD_OUT = ("rte", "sentiment", "wsc")
TEMPLATES = epath.resource_path("prompt_tuning") / "data/templates/assets/synthetic"
_PREFIX = "synthetic"


def _source(name: str, splits: tuple[str, ...]) -> seqio.DataSource:
    """The records of one task."""

    # SeqIO calls it by these names.
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        return columns.as_dataset(columns.from_rows(benchmark.rows(name, split)))

    return seqio.FunctionDataSource(dataset, splits=splits)


def _register(name: str, template: Template) -> Iterator[str]:
    """Registers one template of a task, and yields its names: of the task, and of its ranked form."""
    splits = tuple(benchmark.NUM_EXAMPLES)
    task = f"{_PREFIX}_{name}_{re.sub('[^a-z0-9]+', '_', template.name.lower())}"
    made = [template_task(task, _source(name, splits), template, inputs_end=False)]
    if template.answer_choices:
        ranked = _source(name, splits[1:])
        made.append(score_task(f"{task}{SCORE_EVAL}", ranked, template, inputs_end=False))
    dataset = f"{_PREFIX}_{name}"
    for form in made:
        replace_task(form.name, form)
        origins.remember(form.name, Origin(dataset, dataset, template.name))
        yield form.name


def _register_all() -> None:
    """Registers all templates, and the mixtures."""
    mixtures: dict[str, list[str]] = {"eval": [], "train": []}
    for (_, name), templates in read_templates(str(TEMPLATES)).items():
        for template in templates:
            names = _register(str(name), template)
            mixtures["eval" if name in HELD_OUT else "train"] += names
    for part, names in mixtures.items():
        ranked = [name for name in names if name.endswith(SCORE_EVAL)]
        replace_mixture(f"{_PREFIX}_t0_{part}{SCORE_EVAL}", dict.fromkeys(ranked, 1.0))
        if part == "train":
            trained = [name for name in names if name not in ranked]
            replace_mixture(f"{_PREFIX}_t0_train", dict.fromkeys(trained, 1.0))


_register_all()
