"""GLUE: `glue_{name}_v002` as in T5, `taskless_glue_{name}_v002` as in prompt tuning, and `v200` of both.

The version follows the one of TensorFlow Datasets: v002 reads 1.0.0, v200 reads 2.0.0 (which also builds where the old
one no longer does). The mixture `glue_mnli_and_dev_{version}` trains on MNLI and evaluates both of its dev sets. For
`mt5_…`, `byt5_…`, `task_index_…` and `…_examples` see `prompt_tuning.data.benchmarks.data_sets.register_forms`.
"""

import pathlib

from prompt_tuning.data import postprocessors
from prompt_tuning.data.benchmarks.data_sets import (
    EXAMPLES,
    FORMS,
    DataSet,
    read_table,
    register_forms,
)
from prompt_tuning.data.benchmarks.local_files import LocalFormat
from prompt_tuning.data.metrics import pearson_corrcoef, spearman_corrcoef
from prompt_tuning.data.preprocessors import similarity_text
from prompt_tuning.data.registry import register_mixture

_PAIR = ("sentence1", "sentence2")
# Name -> data set. RTE has SuperGLUE's examples under GLUE's names of the columns, which are part of the text; the
# labels of the diagnostic set AX are withheld.
DATA_SETS = read_table(pathlib.Path(__file__).parent / "assets" / "glue.json", suffix=".tsv") | {
    "stsb": DataSet(
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
    )
}
VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}

for _task_version, _tfds_version in VERSIONS.items():
    for _data in DATA_SETS.values():
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
