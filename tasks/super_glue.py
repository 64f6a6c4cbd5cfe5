"""SuperGLUE: `super_glue_{name}_v102` as in T5, `taskless_super_glue_{name}_v102` as in prompt tuning.

Both again with the suffix `_examples`, which shows examples in TensorBoard. A new task is a new row.
"""

from prompt_tuning.data.classification import Classification, register_forms
from prompt_tuning.data.local_files import LocalFormat
from prompt_tuning.data.metrics import accuracy, mean_multiclass_f1

_ENTAILMENT = ("entailment", "not_entailment")

DATA_SETS = (
    Classification(
        "boolq",
        LocalFormat("BoolQ", ".jsonl", ("question", "passage"), ("False", "True")),
        verbalizers=("False", "True"),
    ),
    Classification(
        "cb",
        LocalFormat(
            "CB", ".jsonl", ("premise", "hypothesis"), ("entailment", "contradiction", "neutral")
        ),
        verbalizers=("entailment", "contradiction", "neutral"),
        metric_fns=(mean_multiclass_f1(num_classes=3), accuracy),
    ),
    Classification(
        "rte",
        LocalFormat("RTE", ".jsonl", ("premise", "hypothesis"), _ENTAILMENT),
        verbalizers=_ENTAILMENT,
    ),
)

for _data in DATA_SETS:
    register_forms(
        _data, f"super_glue_{_data.name}_v102", tfds_name=f"super_glue/{_data.name}:1.0.2"
    )
