"""SQuAD 1.1 and MRQA: train on the first, evaluate on MRQA's out-of-domain sets, or train on its others.

- `squad_v010_allanswers` as in T5, `squad_v010_context_free` without the text, and `mrqa_{name}_v100` for the sets in
  `assets/mrqa.json`; again with the suffix `_examples`, which shows examples in TensorBoard, and with `mt5_`
  or `byt5_` in front.
- The mixtures `squad_to_{name}` and `squad_to_mrqa` train on SQuAD and evaluate on one of the out-of-domain sets, or on
  all; again with `_examples`, `mt5_` and `byt5_`.
- The mixture `mrqa_v100_proportional` trains on all of the in-domain sets: a source on which a prompt is trained that
  starts others.

SQuAD has no form without the task's name: T5 writes none in front.
"""

import json
import pathlib
from typing import Any

from prompt_tuning.data import answer_metrics
from prompt_tuning.data.benchmarks import nested_files, reading
from prompt_tuning.data.benchmarks.data_sets import EXAMPLES, MODELS, DataSet, register
from prompt_tuning.data.benchmarks.nested_files import NestedFormat
from prompt_tuning.data.preprocessors import TextPreprocessor
from prompt_tuning.data.registry import register_mixture

# Kind of set -> name of the set in a task -> its original file and, of sets that are trained on, the questions of their
# training sets, https://arxiv.org/abs/1910.09753.
_MRQA = json.loads(
    (pathlib.Path(__file__).parent / "assets" / "mrqa.json").read_text(encoding="utf-8")
)
# Name of SQuAD's task -> what it shows.
FORMS = {
    "allanswers": reading.squad_text(),
    "context_free": reading.squad_text(has_context=False),
}
_SHOWN = ("targets_pretokenized", "context", "question", "answers")
_TEXTS = {"context": "U.S. (est. 1776)", "question": "When?"}


def _answers(
    name: str, local: NestedFormat, to_text: TextPreprocessor, probe: dict[str, Any], **changes: Any
) -> DataSet:
    """A data set that is answered in free text."""
    return DataSet(
        name,
        local,
        lambda _: to_text,
        (probe,),
        postprocess_fn=reading.all_answers,
        metric_fns=(answer_metrics.squad,),
        example_fields=_SHOWN,
        format_fn=answer_metrics.format_answers,
        is_right=answer_metrics.is_right,
        **changes,
    )


SQUAD = _answers(
    "squad",
    NestedFormat(
        "SQuAD",
        ".json",
        nested_files.squad,
        stems=(("train", ("train-v1.1", "train")), ("validation", ("dev-v1.1", "dev"))),
    ),
    FORMS["allanswers"],
    {**_TEXTS, "id": "a", "title": "b", "answers": {"text": ["1776.", "in 1776"]}},
    splits=("train", "validation"),
)


def _mrqa(name: str, file: str, *, is_trained_on: bool) -> DataSet:
    """A set of MRQA; the out-of-domain sets have one split, which TensorFlow Datasets calls test."""
    stems = {"train": f"train/{file}", "validation": f"dev/{file}"}
    splits: Any = ("train", "validation")
    if not is_trained_on:
        stems, splits = {"validation": file}, {"validation": "test"}
    fmt = NestedFormat(
        "MRQA",
        ".jsonl.gz",
        nested_files.mrqa,
        stems=tuple((split, (stem,)) for split, stem in stems.items()),
    )
    probe = {**_TEXTS, "qid": "a", "answers": ["1776.", "in 1776"]}
    return _answers(name, fmt, reading.mrqa_text(), probe, splits=splits)


MRQA_SETS = {
    name: _mrqa(name, row["file"], is_trained_on=kind == "in_domain")
    for kind, rows in _MRQA.items()
    for name, row in rows.items()
}

for _model in MODELS:
    for _suffix in ("", EXAMPLES):
        for _name, _to_text in FORMS.items():
            register(
                SQUAD,
                f"{_model}squad_v010_{_name}{_suffix}",
                tfds_name="squad/v1.1:3.0.0",
                to_text=_to_text,
                log_examples=bool(_suffix),
            )
        _evaluated = {name: f"{_model}mrqa_{name}_v100{_suffix}" for name in _MRQA["out_of_domain"]}
        for _name, _data in MRQA_SETS.items():
            register(
                _data,
                f"{_model}mrqa_{_name}_v100{_suffix}",
                tfds_name=f"mrqa/{_name}:1.0.0",
                to_text=_data.text(""),
                log_examples=bool(_suffix),
            )
        register_mixture(
            f"{_model}mrqa_v100_proportional{_suffix}",
            {
                f"{_model}mrqa_{name}_v100{_suffix}": float(row["train_questions"])
                for name, row in _MRQA["in_domain"].items()
            },
        )
        _trained = f"{_model}squad_v010_allanswers{_suffix}"
        for _name, _tasks in (*_evaluated.items(), ("mrqa", None)):
            _others = [_tasks] if _tasks else list(_evaluated.values())
            register_mixture(f"{_model}squad_to_{_name}{_suffix}", [_trained, *_others])
