"""A mixture of three tasks that `local_data` writes, in equal shares; processes of a test load it by name."""

from prompt_tuning.data.registry import register_mixture
from prompt_tuning.tasks import glue as glue

TASKS = tuple(f"taskless_glue_{name}_v200" for name in ("mrpc", "rte", "sst2"))
MIXTURE = "mrpc_rte_sst2"

register_mixture(MIXTURE, TASKS)
