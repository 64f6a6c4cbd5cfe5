"""The task module that T5X users name: `MIXTURE_OR_TASK_MODULE = 'prompt_tuning.data.tasks'`.

Importing this registers every task and mixture of `prompt_tuning.tasks` that reads a published data set, and does
nothing else. The modules are looked up by name, as a run does with any module of tasks: the library itself does not
depend on the tasks.
"""

import importlib

for _module in ("mixtures", "question_answering", "transfer", "lm_adaptation"):
    importlib.import_module(f"prompt_tuning.tasks.{_module}")
