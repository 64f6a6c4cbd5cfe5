"""Mixtures over whole benchmarks, each task in proportion to its training examples.

- `super_glue_v102_proportional`: SuperGLUE with DPR, on which the paper's stronger baseline tunes the whole model. The
  evaluation sets that have no training set of their own take part with rate 0.
- `glue_v002_proportional`, and the same as v200: GLUE without WNLI, as T5 has it.
- `wsc_dpr_simple_proportional`: the pronouns alone.
- The same with `taskless_` in front, of tasks without their name in the text: sources on which a prompt is trained that
  starts others.
- `task_index_super_glue_v102_examples_proportional` and `task_index_super_glue_with_dpr_v102_examples_proportional`:
  the authors' mixtures for a prompt that several tasks share, without and with DPR.

A source prompt is trained on any of these, on a task, or on a mixture of one's own from
`prompt_tuning.data.registry.register_mixture`.
"""

import json
import pathlib

import prompt_tuning.tasks.glue  # noqa: F401  (registers the tasks)
import prompt_tuning.tasks.super_glue  # noqa: F401
from prompt_tuning.data.benchmarks.data_sets import EXAMPLES, TASK_INDEX, TASKLESS
from prompt_tuning.data.registry import register_mixture
from prompt_tuning.tasks.glue import VERSIONS

# Task -> training examples; ReCoRD's as T5 writes them, one per right answer, and WSC's those that name the right
# referent. A task of none is evaluated only.
_EXAMPLES = json.loads(
    (pathlib.Path(__file__).parent / "assets" / "train_examples.json").read_text(encoding="utf-8")
)
PRONOUN_RATES: dict[str, int] = _EXAMPLES["pronouns"]
SUPER_GLUE_RATES: dict[str, int] = PRONOUN_RATES | _EXAMPLES["super_glue"]
GLUE_RATES: dict[str, int] = _EXAMPLES["glue"]

for _form in ("", TASKLESS):
    for _suffix in ("", EXAMPLES):
        for _name, _rates in (
            ("super_glue_v102_proportional", SUPER_GLUE_RATES),
            ("wsc_dpr_simple_proportional", PRONOUN_RATES),
            *(
                (
                    f"glue_{_version}_proportional",
                    {f"glue_{name}_{_version}": rate for name, rate in GLUE_RATES.items()},
                )
                for _version in VERSIONS
            ),
        ):
            register_mixture(
                f"{_form}{_name}{_suffix}",
                {f"{_form}{task}{_suffix}": float(rate) for task, rate in _rates.items()},
            )

# These have no diagnostics, and WSC's training set has no examples to show.
_INDEXED_RATES = {
    f"{TASK_INDEX}{task}{'' if task.endswith('_train') else EXAMPLES}": float(rate)
    for task, rate in SUPER_GLUE_RATES.items()
    if not task.startswith(("super_glue_axb", "super_glue_axg"))
}
register_mixture(f"{TASK_INDEX}super_glue_with_dpr_v102_examples_proportional", _INDEXED_RATES)
register_mixture(
    f"{TASK_INDEX}super_glue_v102_examples_proportional",
    {task: rate for task, rate in _INDEXED_RATES.items() if "_dpr_" not in task},
)
