"""GLUE: `glue_{name}_v002` as in T5, `taskless_glue_{name}_v002` as in prompt tuning, and `v200` of both.

The version follows the one of TensorFlow Datasets: v002 reads 1.0.0, v200 reads 2.0.0 (which also builds where the old
one no longer does). All again with the suffix `_examples`, which shows examples in TensorBoard.
"""

from prompt_tuning.data.classification import Classification, register_forms
from prompt_tuning.data.local_files import LocalFormat

DATA_SETS = (
    Classification(
        "sst2",
        LocalFormat("SST-2", ".tsv", ("sentence",), ("negative", "positive")),
        verbalizers=("negative", "positive"),
    ),
)
VERSIONS = {"v002": "1.0.0", "v200": "2.0.0"}

for _data in DATA_SETS:
    for _task_version, _tfds_version in VERSIONS.items():
        register_forms(
            _data,
            f"glue_{_data.name}_{_task_version}",
            tfds_name=f"glue/{_data.name}:{_tfds_version}",
        )
