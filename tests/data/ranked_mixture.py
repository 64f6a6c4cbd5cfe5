"""A mixture that evaluates CB twice, decoded and ranked; the processes of a test load it by name."""

from prompt_tuning.data.registry import register_mixture
from prompt_tuning.tasks import super_glue as super_glue

TASKS = ("taskless_super_glue_cb_v102", "taskless_super_glue_cb_v102_rank")
MIXTURE = "cb_decoded_and_ranked"

register_mixture(MIXTURE, TASKS)
