"""The synthetic suite: tasks in the image of SuperGLUE, and one of sentiment, about a little world; no download.

- `synthetic_boolq`, `_cb`, `_copa`, `_multirc`, `_rte`, `_sentiment`, `_wic`, `_wsc`: text as the taskless tasks of
  SuperGLUE have it, `{field}: {value} …`.
- `…_rank` of those with labels: the same by rank classification (see `prompt_tuning.data.ranking`), without a
  training split.
- The mixtures `synthetic` and `synthetic_rank`: all of them; WSC, whose answers are names, is decoded in both.

Answers are words that the world's text uses: `True` and `False`; `yes`, `no` and `maybe`; `first` and `second`;
`positive` and `negative`; the name of whom a pronoun means. The examples are made in memory
(`prompt_tuning.data.synthetic.benchmark`).
"""

from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import answer_metrics, columns, postprocessors, ranking
from prompt_tuning.data.benchmarks import pronouns
from prompt_tuning.data.metrics import MetricFn, accuracy, mean_multiclass_f1
from prompt_tuning.data.preprocessors import TextPreprocessor, classification_text
from prompt_tuning.data.registry import register_mixture, register_task
from prompt_tuning.data.synthetic import benchmark

PREFIX = "synthetic_"
MIXTURE = "synthetic"
# Written in the order of the columns' names, as T5 does, but where that would ask before it tells.
FIELDS: dict[str, dict[str, str]] = {
    name: {field: field for field in fields.split()}
    for name, fields in {
        "boolq": "passage question",
        "cb": "hypothesis premise",
        "copa": "premise question first second",
        "multirc": "question answer paragraph",
        "rte": "hypothesis premise",
        "sentiment": "sentence",
        "wic": "sentence1 sentence2 word",
    }.items()
}
_METRICS: dict[str, tuple[MetricFn, ...]] = {
    "cb": (mean_multiclass_f1(num_classes=3), accuracy),
    "multirc": (answer_metrics.f1_over_answers, answer_metrics.exact_groups),
}


def _source(name: str, splits: tuple[str, ...]) -> seqio.DataSource:
    """The splits of one task."""

    # SeqIO calls it by these names.
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        rows = benchmark.rows(name, split)
        if name == "wsc" and split == "train":
            # A model learns whom a pronoun means from the right candidates.
            rows = [row for row in rows if row["label"]]
        return columns.as_dataset(columns.from_rows(rows))

    return seqio.FunctionDataSource(dataset, splits=splits)


def _register(name: str, form: benchmark.Form) -> None:
    """Registers one task, and its `_rank` if it has labels."""
    splits = tuple(benchmark.NUM_EXAMPLES)
    # Short, and of every class: only to compare with a task of the same name.
    if name == "wsc":
        word = {"span1_text": "Ann", "span1_index": 0, "span2_text": "she", "span2_index": 4}
        sentence = {"text": "Ann thanked Clara because she was kind.", **word}
        register_task(
            f"{PREFIX}{name}",
            source=_source(name, splits),
            to_text=pronouns.winograd_text(),
            postprocess_fn=pronouns.names_referent,
            metric_fns=[accuracy],
            probe=[{**sentence, "label": label, "idx": label} for label in (0, 1)],
        )
        return
    metric_fns = _METRICS.get(name, (accuracy,))
    to_text: TextPreprocessor = classification_text(fields=FIELDS[name], verbalizers=form.classes)
    is_grouped = name == "multirc"
    to_value = postprocessors.grouped_label_index if is_grouped else postprocessors.label_index
    postprocess_fn = to_value(form.classes)
    probe = []
    for label in range(len(form.classes)):
        idx: Any = {"paragraph": 0, "question": 0, "answer": label} if is_grouped else label
        probe.append({**{field: field for field in FIELDS[name]}, "label": label, "idx": idx})
    register_task(
        f"{PREFIX}{name}",
        source=_source(name, splits),
        to_text=to_text,
        postprocess_fn=postprocess_fn,
        metric_fns=metric_fns,
        probe=probe,
        verbalizers=form.classes,
    )
    register_task(
        f"{PREFIX}{name}{ranking.SUFFIX}",
        source=_source(name, splits[1:]),
        **ranking.ranked(to_text, postprocess_fn, metric_fns, form.classes),
        probe=probe,
        verbalizers=form.classes,
    )


for _name, _form in benchmark.FORMS.items():
    _register(_name, _form)
register_mixture(MIXTURE, [f"{PREFIX}{name}" for name in benchmark.FORMS])
register_mixture(
    f"{MIXTURE}{ranking.SUFFIX}",
    [f"{PREFIX}{name}{'' if name == 'wsc' else ranking.SUFFIX}" for name in benchmark.FORMS],
)
