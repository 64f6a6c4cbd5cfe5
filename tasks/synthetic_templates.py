"""The synthetic suite in templates, and T0 in miniature on it; no download.

- `synthetic_{task}_{template}`: a task of `prompt_tuning.tasks.synthetic` as a template of this package writes it
  (`prompt_tuning/data/templates/assets/synthetic`).
- `…_score_eval` of those with answer choices: the same by ranking these, without a training split.
- The mixtures `synthetic_t0_train`: all templates of all tasks but `HELD_OUT`; `synthetic_t0_train_score_eval` and
  `synthetic_t0_eval_score_eval`: the ranked ones of these tasks, and of the tasks held out.
- The mixtures `synthetic_{task}_score_eval`: the ranked ones of a task.
- The mixtures `synthetic_{task}_few_shot` of the tasks held out, for T-Few: the first `SHOTS` training examples, a
  template drawn for each in each epoch, and to evaluate them `…_normalized_score_eval`, which compares the choices by
  their mean over tokens. Inputs end with EOS.

As in T0, every template of a task is drawn as often as any other, and inputs do not end with EOS.
"""

from collections.abc import Sequence

import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import columns
from prompt_tuning.data.registry import replace_mixture, replace_task
from prompt_tuning.data.synthetic import benchmark
from prompt_tuning.data.templates import origins
from prompt_tuning.data.templates.origins import Origin
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.data.templates.tasks import SCORE_EVAL, score_task, template_task, to_text

HELD_OUT = ("rte", "sentiment", "wsc")
SHOTS = 32
TEMPLATES = epath.resource_path("prompt_tuning") / "data/templates/assets/synthetic"
_PREFIX = "synthetic"


def _source(name: str, splits: Sequence[str], limit: int | None = None) -> seqio.DataSource:
    """The records of one task, in some splits; the first ones where there is a limit."""

    # SeqIO calls it by these names.
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        return columns.as_dataset(columns.from_rows(benchmark.rows(name, split)[:limit]))

    return seqio.FunctionDataSource(dataset, splits=splits)


def _register(name: str, task: seqio.Task, template: Template) -> str:
    """Registers a template of a task, and returns its name."""
    replace_task(task.name, task)
    dataset = f"{_PREFIX}_{name}"
    origins.remember(task.name, Origin(dataset, dataset, template.name))
    return task.name


def _register_templates(name: str, templates: Sequence[Template]) -> tuple[list[str], list[str]]:
    """Registers every template of a task, and returns the names of the tasks, and of their ranked forms."""
    trained, ranked = [], []
    splits = tuple(benchmark.NUM_EXAMPLES)
    for template in templates:
        task = template.task_name(f"{_PREFIX}_{name}")
        made = template_task(task, _source(name, splits), template, inputs_end=False)
        trained.append(_register(name, made, template))
        if template.answer_choices:
            source = _source(name, splits[1:])
            made = score_task(f"{task}{SCORE_EVAL}", source, template, inputs_end=False)
            ranked.append(_register(name, made, template))
    return trained, ranked


def _register_few_shot(name: str, templates: Sequence[Template]) -> None:
    """Registers a task's mixture for T-Few."""
    templates = [template for template in templates if template.answer_choices]
    train, validation, _ = benchmark.NUM_EXAMPLES
    text = to_text(templates, seed=0)
    source = _source(name, [train], SHOTS)
    shots = template_task(f"{_PREFIX}_{name}_shots", source, templates[0], text=text)
    replace_task(shots.name, shots)
    rates = {shots.name: 1.0}
    for template in templates:
        task = f"{template.task_name(f'{_PREFIX}_{name}')}_normalized{SCORE_EVAL}"
        source = _source(name, [validation])
        made = score_task(task, source, template, length_normalized=True)
        rates[_register(name, made, template)] = 0.0
    replace_mixture(f"{_PREFIX}_{name}_few_shot", rates)


def _register_all() -> None:
    """Registers all templates, and the mixtures."""
    trained: list[str] = []
    scored: dict[str, list[str]] = {"t0_train": [], "t0_eval": []}
    for (_, subset), templates in read_templates(str(TEMPLATES)).items():
        name = str(subset)
        tasks, ranked = _register_templates(name, templates)
        scored |= {name: ranked}
        if name in HELD_OUT:
            scored["t0_eval"] += ranked
            _register_few_shot(name, templates)
        else:
            scored["t0_train"] += ranked
            trained += tasks
    replace_mixture(f"{_PREFIX}_t0_train", dict.fromkeys(trained, 1.0))
    for mixture, names in scored.items():
        replace_mixture(f"{_PREFIX}_{mixture}{SCORE_EVAL}", dict.fromkeys(names, 1.0))


_register_all()
