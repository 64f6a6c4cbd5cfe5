"""The task module that T5X users name: `MIXTURE_OR_TASK_MODULE = 'prompt_tuning.data.glue_transfer'`.

Importing this registers the tasks of `prompt_tuning.tasks.transfer`, and does nothing else. That module is
looked up by name, as a run does with any module of tasks: the library itself does not depend on the tasks.
"""

import importlib

importlib.import_module("prompt_tuning.tasks.transfer")
