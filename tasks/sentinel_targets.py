"""SuperGLUE and the synthetic suite with targets that begin with `<extra_id_0>`: `{task}_sentinel`.

- `taskless_super_glue_{name}_v102_sentinel`, and the mixture `taskless_super_glue_wsc_and_dev_v102_simple_sentinel`.
- `synthetic_{name}_sentinel`.

The "span corruption + sentinel" rows of the paper's ablation tune prompts for T5 1.1 as it was pre-trained, without
LM adaptation, on these tasks. `prompt_tuning.data.text.sentinel_targets.register_with_sentinel` makes such a copy of
any task.
"""

import seqio

import prompt_tuning.tasks.super_glue  # noqa: F401  (registers the tasks)
import prompt_tuning.tasks.synthetic  # noqa: F401
from prompt_tuning.data.registry import register_mixture
from prompt_tuning.data.text.sentinel_targets import SUFFIX, register_with_sentinel

_PREFIXES = ("taskless_super_glue_", "synthetic_")
_WSC = "taskless_super_glue_wsc"

for _name in sorted(seqio.TaskRegistry.names()):
    if _name.startswith(_PREFIXES) and not _name.endswith(SUFFIX):
        register_with_sentinel(_name)
register_mixture(
    f"{_WSC}_and_dev_v102_simple{SUFFIX}",
    [f"{_WSC}_v102_simple_{split}{SUFFIX}" for split in ("train", "eval")],
)
