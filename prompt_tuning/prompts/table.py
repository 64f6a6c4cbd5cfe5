"""Many prompts in one batch: a table of them beside the parameters, and in the batch a row of the table an example.

A batch without `INDEX` takes the model's own prompt: nothing is added to what is compiled for it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Batch, PyTree

# The table's name among the parameters; no parameter of a model begins with it.
TABLE = "prompt_table"
# The feature of a batch [B] int32: which prompt of the table each row takes.
INDEX = "encoder_prompt_index"


def make_table(prompts: Sequence[Float[np.ndarray, "P H"]]) -> dict[str, np.ndarray]:
    """Returns prompts as one array, with shorter ones padded on the left, away from the tokens.

    Args:
      prompts: K prompts [P_k, H] of one width; their lengths may differ.

    Returns:
      "prompts": [K, P, H] float32, P the longest length, zeros where a prompt is shorter; "mask": [K, P] int32, 1
      where a position is real.

    Raises:
      ConfigError: If there is no prompt, or their widths differ.
    """
    widths = sorted({prompt.shape[1] for prompt in prompts})
    if len(widths) != 1:
        raise ConfigError(
            "These prompts make no table",
            got=f"{len(prompts)} prompts of widths {widths}",
            expected="at least one prompt, all of the model's width",
            fix="use prompts that were trained on one frozen model",
        )
    longest = max(len(prompt) for prompt in prompts)
    array = np.zeros((len(prompts), longest, widths[0]), np.float32)
    mask = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        array[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return {"prompts": array, "mask": mask}


def of_rows(params: PyTree, batch: Batch) -> dict[str, Any]:
    """Returns what `encode` takes for the rows of a batch: `prompt` [B, P, H] float32 and `prompt_mask` [B, P].

    Args:
      params: Parameters; with `TABLE` among them if the batch has `INDEX`.
      batch: Model features.

    Returns:
      The two arguments, or none for a batch in which every row takes the model's own prompt.
    """
    if INDEX not in batch:
        return {}
    table, index = params[TABLE], jnp.asarray(batch[INDEX])
    rows = jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), dict(table))
    return {"prompt": rows["prompts"], "prompt_mask": rows["mask"]}
