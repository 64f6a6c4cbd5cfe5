"""Transfer between two paraphrase tasks that name their classes differently: QQP to MRPC and back.

`glue_mrpc_from_qqp_v002` is MRPC's validation set for a model that answers `duplicate` and `not_duplicate`, as one
trained on QQP does, and `glue_qqp_from_mrpc_v002` the reverse. The mixtures `glue_mrpc_from_qqp_zeroshot_v002` and
`glue_qqp_from_mrpc_zeroshot_v002` train on the one task and evaluate so on the other. All of them as v200 too, with
`taskless_`, `task_index_`, `mt5_` and `byt5_` in front, and with the suffix `_examples`.

Source: Lester et al. 2021, section 5.
"""

import dataclasses

from prompt_tuning.data import postprocessors
from prompt_tuning.data.benchmarks.data_sets import EXAMPLES, FORMS, register_forms
from prompt_tuning.data.registry import register_mixture
from prompt_tuning.tasks.glue import DATA_SETS, VERSIONS

# (trained on, evaluated on) -> word of the first -> word of the second.
PAIRS = {
    ("qqp", "mrpc"): {"duplicate": "equivalent"},
    ("mrpc", "qqp"): {"equivalent": "duplicate"},
}

for (_source, _target), _words in PAIRS.items():
    _data = dataclasses.replace(
        DATA_SETS[_target],
        postprocess_fn=postprocessors.translated(DATA_SETS[_target].postprocess_fn, _words),
        # What the model answers, and so what is scored.
        verbalizers=DATA_SETS[_source].verbalizers,
        splits=("validation",),
    )
    for _task_version, _tfds_version in VERSIONS.items():
        _name = f"glue_{_target}_from_{_source}"
        register_forms(
            _data, f"{_name}_{_task_version}", tfds_name=f"glue/{_target}:{_tfds_version}"
        )
        for _form in FORMS:
            for _suffix in ("", EXAMPLES):
                register_mixture(
                    f"{_form}{_name}_zeroshot_{_task_version}{_suffix}",
                    [
                        f"{_form}glue_{_source}_{_task_version}",
                        f"{_form}{_name}_{_task_version}{_suffix}",
                    ],
                )
