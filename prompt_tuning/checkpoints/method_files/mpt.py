"""MPT as adapters of Hugging Face's PEFT have it.

| here | PEFT |
|---|---|
| the prompt [P, H] | `prompt_embeddings` [P', H] |
| `encoder/task_columns` [tasks, P, rank] | `prefix_task_cols` [tasks, P', rank] |
| `encoder/task_rows` [tasks, rank, H] | `prefix_task_rows` [tasks, rank, H] |

P' is P, or with `num_transformer_submodules` 2, PEFT's default for T5, twice as many: its `forward` puts the second
half in front of the decoder's input, and its `generate` leaves that half out. What decodes is taken: the first P rows.
`num_transformer_submodules` is 1 in what is written here, with which `forward` and `generate` agree.

Source: PEFT 0.21, `tuners/multitask_prompt_tuning/model.py`, `peft_model.py` `PeftModelForSeq2SeqLM`.
"""

from typing import Any

import numpy as np
from absl import logging
from etils import epath

from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import PROMPT_PATH, TASK_COLUMNS, TASK_ROWS

PEFT_KIND = peft.MULTITASK
NAME = "MPT"
_COLUMNS, _ROWS = f"encoder/{TASK_COLUMNS}", f"encoder/{TASK_ROWS}"


def read_adapter(path: epath.Path) -> MethodSet:
    """Reads what belongs to tasks of a PEFT adapter of MPT; its prompt is read as prompts are.

    Args:
      path: The adapter's directory; local or gs://.

    Raises:
      CheckpointError: If the adapter is of another kind or for another kind of model, or damaged.
    """
    config = peft.read_config(path, kind=PEFT_KIND, what="prompts of several tasks")
    tensors, info = peft.read_tensors(path)
    names = (peft.TENSOR, *peft.OF_TASKS)
    shapes = {name: list(tensors[name].shape) for name in names if name in tensors}
    rows, width = shapes.get(peft.TENSOR, [0, 0])
    tasks, rank = config.get("num_tasks"), config.get("num_ranks")
    expected = {
        peft.TENSOR: [rows, width],
        peft.OF_TASKS[0]: [tasks, rows, rank],
        peft.OF_TASKS[1]: [tasks, rank, width],
    }
    length = config.get("num_virtual_tokens")
    if shapes != expected or set(tensors) != set(names) or length not in (rows, rows // 2):
        raise CheckpointError(
            f"The adapter {path} contradicts its own {peft.CONFIG_FILE}, or holds something else than prompts",
            got={name: list(x.shape) for name, x in tensors.items()},
            expected=f"{expected}, as num_tasks and num_ranks say, and num_virtual_tokens rows or twice as many",
            fix="save the adapter again, or copy it again",
        )
    if length < rows:
        logging.info(
            "%s: the second half of %d rows, for the decoder, is not used, as PEFT decodes",
            path,
            rows,
        )
    columns, of_rows = (tensors[name].astype(np.float32) for name in peft.OF_TASKS)
    return MethodSet({_COLUMNS: columns[:, :length], _ROWS: of_rows}, info or {})


def describe(found: MethodSet) -> dict[str, Any]:
    """Returns name and settings of what is of MPT, its tasks by their numbers, as PEFT knows them; else nothing."""
    if set(found.params) != {_COLUMNS, _ROWS}:
        return {}
    tasks, rank, _ = found.params[_ROWS].shape
    return {"name": NAME, "tasks": [str(number) for number in range(tasks)], "rank": rank}


def encode_adapter(found: MethodSet, *, base_model: str | None) -> dict[str, bytes]:
    """Returns the files of an adapter, by name, that `peft.PeftModel.from_pretrained` loads, the configuration last.

    Args:
      found: What belongs to tasks, and the prompt.
      base_model: Name on the Hugging Face hub, or path, of the model that they are for.
    """
    prompt, columns, rows = (found.params[path] for path in (PROMPT_PATH, _COLUMNS, _ROWS))
    config: dict[str, Any] = {
        "num_ranks": rows.shape[1],
        "num_tasks": rows.shape[0],
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "prompt_tuning_init": "RANDOM",
        "token_dim": prompt.shape[1],
    }
    names = (peft.TENSOR, *peft.OF_TASKS)
    tensors: dict[str, np.ndarray] = dict(zip(names, (prompt, columns, rows), strict=True))
    return peft.encode_files(tensors, found.info, config, kind=PEFT_KIND, base_model=base_model)
