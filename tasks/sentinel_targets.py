"""SuperGLUE with targets that begin with `<extra_id_0>`: `taskless_super_glue_{name}_v102_sentinel`.

The "span corruption + sentinel" rows of the paper's ablation tune prompts for T5 1.1 as it was pre-trained, without LM
adaptation, on these tasks. `prompt_tuning.data.sentinel_targets.register_with_sentinel` makes such a copy of any task.
"""

import seqio

import prompt_tuning.tasks.super_glue  # noqa: F401  (registers the tasks)
from prompt_tuning.data.sentinel_targets import SUFFIX, register_with_sentinel

_PREFIX = "taskless_super_glue_"

for _name in sorted(seqio.TaskRegistry.names()):
    if _name.startswith(_PREFIX) and not _name.endswith(SUFFIX):
        register_with_sentinel(_name)
