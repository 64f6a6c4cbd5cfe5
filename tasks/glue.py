"""GLUE: `glue_{name}_v002` as in T5, `taskless_glue_{name}_v002` as in prompt tuning, and `v200` of both.

The version follows the one of TensorFlow Datasets: v002 reads 1.0.0, v200 reads 2.0.0 (which also builds where the old
one no longer does). The mixture `glue_mnli_and_dev_{version}` trains on MNLI and evaluates both of its dev sets. For
`mt5_…`, `byt5_…`, `task_index_…` and `…_examples` see `prompt_tuning.data.benchmarks.data_sets.register_forms`.
"""

from typing import Any

from prompt_tuning.data import postprocessors
from prompt_tuning.data.benchmarks.data_sets import (
    EXAMPLES,
    FORMS,
    DataSet,
    classification,
    register_forms,
)
from prompt_tuning.data.benchmarks.local_files import LocalFormat
from prompt_tuning.data.metrics import (
    accuracy,
    binary_f1,
    matthews_corrcoef,
    pearson_corrcoef,
    spearman_corrcoef,
)
from prompt_tuning.data.preprocessors import similarity_text
from prompt_tuning.data.registry import register_mixture

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI = ("entailment", "neutral", "contradiction")


def _mnli(name: str, stems: dict[str, str], **changes: Any) -> DataSet:
    """A part of MNLI: split -> stem of its file."""
    local = LocalFormat(
        "MNLI",
        ".tsv",
        ("premise", "hypothesis"),
        _MNLI,
        columns=_PAIR,
        label_column="gold_label",
        stems=tuple((split, (stem,)) for split, stem in stems.items()),
    )
    attributes: dict[str, Any] = {
        "prefix": "mnli",
        "splits": tuple(stems),
        "task_index": 1,
        **changes,
    }
    return classification(name, local, _MNLI, **attributes)


def _dev_sets(kind: str) -> dict[str, str]:
    """The files of one kind of MNLI's dev and test sets, matched or mismatched."""
    return {"validation": f"dev_{kind}", "test": f"test_{kind}"}


DATA_SETS = (
    classification(
        "cola",
        LocalFormat(
            "CoLA",
            ".tsv",
            ("sentence",),
            ("unacceptable", "acceptable"),
            header=("source", "label", "original", "sentence"),
        ),
        ("unacceptable", "acceptable"),
        metric_fns=(matthews_corrcoef,),
        task_index=0,
    ),
    classification(
        "sst2",
        LocalFormat("SST-2", ".tsv", ("sentence",), ("negative", "positive")),
        ("negative", "positive"),
        task_index=6,
    ),
    classification(
        "mrpc",
        LocalFormat(
            "MRPC",
            ".tsv",
            _PAIR,
            ("not_equivalent", "equivalent"),
            columns=("#1 String", "#2 String"),
            label_column="Quality",
        ),
        ("not_equivalent", "equivalent"),
        metric_fns=(binary_f1, accuracy),
        task_index=2,
    ),
    classification(
        "qqp",
        LocalFormat(
            "QQP",
            ".tsv",
            ("question1", "question2"),
            ("not_duplicate", "duplicate"),
            label_column="is_duplicate",
            skips_ragged=True,
        ),
        ("not_duplicate", "duplicate"),
        metric_fns=(binary_f1, accuracy),
        task_index=4,
    ),
    DataSet(
        "stsb",
        LocalFormat("STS-B", ".tsv", _PAIR, (), label_column="score"),
        lambda prefix: similarity_text(fields=_PAIR, prefix=prefix),
        tuple(
            {"sentence1": "a  b", "sentence2": " c", "label": label, "idx": 0}
            for label in (-1.0, 2.3, 3.3, 5.0)
        ),
        postprocess_fn=postprocessors.number,
        metric_fns=(pearson_corrcoef, spearman_corrcoef),
        task_index=7,
    ),
    _mnli(
        "mnli",
        {
            "train": "train",
            "validation_matched": "dev_matched",
            "validation_mismatched": "dev_mismatched",
            "test_matched": "test_matched",
            "test_mismatched": "test_mismatched",
        },
    ),
    _mnli("mnli_mismatched", _dev_sets("mismatched")),
    _mnli("mnli_matched", _dev_sets("matched")),
    classification(
        "qnli",
        LocalFormat("QNLI", ".tsv", ("question", "sentence"), _ENTAILMENT),
        _ENTAILMENT,
        task_index=3,
    ),
    # The examples of SuperGLUE's RTE under GLUE's names of the columns, which are part of the text.
    classification(
        "rte", LocalFormat("RTE", ".tsv", _PAIR, _ENTAILMENT), _ENTAILMENT, task_index=5
    ),
    classification(
        "wnli",
        LocalFormat("WNLI", ".tsv", _PAIR, ("not_entailment", "entailment")),
        ("not_entailment", "entailment"),
        task_index=8,
    ),
    # The diagnostic set, whose labels are withheld.
    classification(
        "ax",
        LocalFormat(
            "AX",
            ".tsv",
            ("premise", "hypothesis"),
            _MNLI,
            columns=_PAIR,
            stems=(("test", ("diagnostic", "AX", "test")),),
        ),
        _MNLI,
        prefix="mnli",
        metric_fns=(),
        splits=("test",),
        task_index=1,
    ),
)
VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}

for _task_version, _tfds_version in VERSIONS.items():
    for _data in DATA_SETS:
        register_forms(
            _data,
            f"glue_{_data.name}_{_task_version}",
            tfds_name=f"glue/{_data.name}:{_tfds_version}",
        )
    for _form in FORMS:
        for _suffix in ("", EXAMPLES):
            register_mixture(
                f"{_form}glue_mnli_and_dev_{_task_version}{_suffix}",
                [
                    f"{_form}glue_{_name}_{_task_version}{_suffix}"
                    for _name in ("mnli", "mnli_mismatched", "mnli_matched")
                ],
            )
