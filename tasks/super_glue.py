"""SuperGLUE, its two diagnostics, and definite pronoun resolution (DPR), which the paper's baseline trains on as well.

- `super_glue_{name}_v102` as in T5, `taskless_super_glue_{name}_v102` as in prompt tuning, for boolq, cb, copa,
  multirc, record, rte, wic, axb and axg.
- `super_glue_wsc_v102_simple_train`, `super_glue_wsc_v102_simple_eval` and `dpr_v001_simple`, which answer with what a
  pronoun refers to; again with `taskless_` in front. The mixture `super_glue_wsc_and_dev_v102_simple` joins the first
  two.
- The mixture `super_glue_v102_rank` evaluates the tasks that have labels by rank classification, and ReCoRD and WSC by
  decoding; again with `taskless_` in front.
- `mt5_…`, `byt5_…`, `task_index_…` and `…_examples`: see `prompt_tuning.data.benchmarks.data_sets.register_forms`.

A new task with labels is a new row of `assets/super_glue.json`.
"""

import pathlib
from typing import Any

from prompt_tuning.data import answer_metrics, postprocessors
from prompt_tuning.data.benchmarks import nested_files, pronouns, reading
from prompt_tuning.data.benchmarks.data_sets import (
    EXAMPLES,
    FORMS,
    TASKLESS,
    DataSet,
    read_table,
    register_forms,
)
from prompt_tuning.data.benchmarks.nested_files import NestedFormat
from prompt_tuning.data.metrics import accuracy
from prompt_tuning.data.preprocessors import TextPreprocessor, classification_text
from prompt_tuning.data.ranking import SUFFIX
from prompt_tuning.data.registry import register_mixture

_NO_YES = ("False", "True")


def _multirc_text(prefix: str) -> TextPreprocessor:
    """T5's text of MultiRC; passages have bold sentence numbers and line breaks."""
    return classification_text(
        fields={"question": "question", "answer": "answer", "paragraph": "paragraph"},
        verbalizers=_NO_YES,
        prefix=prefix,
        has_markup=True,
    )


def _winograd(only_correct: bool, splits: tuple[str, ...], **measured: Any) -> DataSet:
    """WSC, for training or for evaluation."""
    sentence = {"text": "Ann met him there", "span1_text": "a man", "span1_index": 3, "idx": 0}
    probe = tuple(
        {**sentence, "span2_text": "him", "span2_index": 2, "label": label} for label in (-1, 0, 1)
    )
    return DataSet(
        "wsc",
        NestedFormat("WSC", ".jsonl", nested_files.pronoun_spans),
        lambda prefix: pronouns.winograd_text(prefix=prefix, only_correct=only_correct),
        probe,
        prefix="wsc:",
        splits=splits,
        task_index=7,
        **measured,
    )


# Name -> data set. The diagnostics AX-b and AX-g are written as RTE, and their labels are public nowhere but in the
# original files.
DATA_SETS = read_table(
    pathlib.Path(__file__).parent / "assets" / "super_glue.json", suffix=".jsonl"
) | {
    "multirc": DataSet(
        "multirc",
        NestedFormat("MultiRC", ".jsonl", nested_files.multirc),
        _multirc_text,
        tuple(
            {
                "paragraph": "<b>Sent 1: </b>a.<br>",
                "question": "q?",
                "answer": f" a{label} ",
                "label": label,
                "idx": {"paragraph": 0, "question": 1, "answer": label + 1},
            }
            for label in (-1, 0, 1)
        ),
        postprocess_fn=postprocessors.grouped_label_index(_NO_YES),
        metric_fns=(answer_metrics.f1_over_answers, answer_metrics.exact_groups),
        verbalizers=_NO_YES,
        is_right=answer_metrics.is_right,
        task_index=3,
    ),
    "record": DataSet(
        "record",
        NestedFormat("ReCoRD", ".jsonl", nested_files.record_queries),
        lambda prefix: reading.record_text(prefix=prefix),
        tuple(
            {
                "passage": "One.\n@highlight\nTwo\n@highlight\nThree",
                "query": "who is @placeholder ?",
                "entities": ["Ann", "Bea"],
                "answers": answers,
                "idx": {"passage": 0, "query": len(answers)},
            }
            for answers in (["Ann", "Bea"], [])
        ),
        postprocess_fn=reading.grouped_answers,
        metric_fns=(answer_metrics.first_of_group(answer_metrics.squad),),
        is_right=answer_metrics.is_right,
        task_index=4,
    ),
}
WSC = {
    "train": _winograd(True, ("train",), metric_fns=()),
    "eval": _winograd(
        False,
        ("validation", "test"),
        postprocess_fn=pronouns.names_referent,
        metric_fns=(accuracy,),
    ),
}
DPR = DataSet(
    "dpr",
    NestedFormat(
        "DPR",
        ".txt",
        nested_files.definite_pronouns,
        stems=(("train", ("train.c",)), ("test", ("test.c",))),
    ),
    lambda prefix: pronouns.definite_pronoun_text(prefix=prefix),
    tuple(
        {
            "sentence": "Ann met Bea as she left.",
            "pronoun": "she",
            "candidates": ["Ann", "Bea"],
            "label": label,
        }
        for label in (0, 1)
    ),
    prefix="wsc:",
    splits=("train", "test"),
    task_index=7,
)

for _data in DATA_SETS.values():
    register_forms(
        _data, f"super_glue_{_data.name}_v102", tfds_name=f"super_glue/{_data.name}:1.0.2"
    )
for _role, _data in WSC.items():
    register_forms(
        _data, f"super_glue_wsc_v102_simple_{_role}", tfds_name="super_glue/wsc.fixed:1.0.2"
    )
register_forms(DPR, "dpr_v001_simple", tfds_name="definite_pronoun_resolution:1.1.0")
for _form in FORMS:
    for _suffix in ("", EXAMPLES):
        # What is trained on is not evaluated, and so has no examples to show.
        register_mixture(
            f"{_form}super_glue_wsc_and_dev_v102_simple{_suffix}",
            [
                f"{_form}super_glue_wsc_v102_simple_train",
                f"{_form}super_glue_wsc_v102_simple_eval{_suffix}",
            ],
        )
for _form in ("", TASKLESS):
    register_mixture(
        f"{_form}super_glue_v102{SUFFIX}",
        [
            *(
                f"{_form}super_glue_{_data.name}_v102{SUFFIX if _data.verbalizers else ''}"
                for _data in DATA_SETS.values()
                if _data.metric_fns
            ),
            f"{_form}super_glue_wsc_v102_simple_eval",
        ],
    )
