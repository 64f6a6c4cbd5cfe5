"""Language modelling on C4: `c4_v220_prefix_lm`, on which T5 1.1 was adapted, and the objectives around it.

- `c4_v220_prefix_lm`, `c4_v220_span_corruption`, `c4_v220_iid_denoising`: as in T5.
- `c4_v220_bart_text_infilling`, `c4_v220_bart_token_deletion`: as in the authors' prompt tuning.

With a `data_dir` they read the shards of `allenai/c4` in `{data_dir}/c4/en`, else TensorFlow Datasets. For text of
your own see `prompt_tuning.data.text.language_modeling.from_text_files`.
"""

from prompt_tuning.data.text.language_modeling import register
from prompt_tuning.data.text.text_sources import C4DataSource

TASKS = {
    "c4_v220_prefix_lm": "prefix_lm",
    "c4_v220_span_corruption": "span_corruption",
    "c4_v220_iid_denoising": "iid_denoising",
    "c4_v220_bart_text_infilling": "text_infilling",
    "c4_v220_bart_token_deletion": "token_deletion",
}

for _name, _objective in TASKS.items():
    register(_name, source=C4DataSource(), objective=_objective)
