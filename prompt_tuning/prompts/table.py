"""Many tuned sets in one batch: a table of them beside the parameters, and in the batch a row of the table an example.

A set is a prompt, what a method added to the model (`models/methods/method.py`), or both. A batch without `INDEX` takes
the model's own: nothing is added to what is compiled for it.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Array, Batch, PyTree

# The table's name among the parameters; no parameter of a model begins with it.
TABLE = "prompt_table"
# The feature of a batch [B] int32: which set of the table each row takes.
INDEX = "encoder_prompt_index"


def make_table(
    prompts: Sequence[Float[np.ndarray, "P H"]],
    added: Sequence[Mapping[str, np.ndarray]] = (),
    *,
    longest: int = 0,
) -> dict[str, Any]:
    """Returns prompts as one array, with shorter ones padded on the left, away from the tokens, and what methods added.

    Args:
      prompts: K prompts [P_k, H] of one width; their lengths may differ. None where sets have no prompts.
      added: Path -> array of each of K sets, the layers of stacked ones first: [layers, ...]. None without a method.
      longest: What P is at least.

    Returns:
      "prompts": [K, P, H] float32, P the longest length, zeros where a prompt is shorter; "mask": [K, P] int32, 1
      where a position is real. "added": path -> [K, ...] float32. What there is none of is left out.

    Raises:
      ConfigError: If there is no prompt, or their widths differ.
    """
    made: dict[str, Any] = {}
    if added:
        made["added"] = {
            path: np.stack([each[path] for each in added]).astype(np.float32) for path in added[0]
        }
        if not prompts:
            return made
    widths = sorted({prompt.shape[1] for prompt in prompts})
    if len(widths) != 1:
        raise ConfigError(
            "These prompts make no table",
            got=f"{len(prompts)} prompts of widths {widths}",
            expected="at least one prompt, all of the model's width",
            fix="use prompts that were trained on one frozen model",
        )
    longest = max(longest, *(len(prompt) for prompt in prompts))
    array = np.zeros((len(prompts), longest, widths[0]), np.float32)
    mask = np.zeros((len(prompts), longest), np.int32)
    for row, prompt in enumerate(prompts):
        array[row, longest - len(prompt) :] = prompt
        mask[row, longest - len(prompt) :] = 1
    return {**made, "prompts": array, "mask": mask}


def put(table: Mapping[str, Any], sets: Mapping[str, Any], row: Array) -> dict[str, Any]:
    """Returns a table with the sets of another one, which is as wide, from a row on; traceable."""
    write = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=row, axis=0)
    return jax.tree.map(write, dict(table), dict(sets))


def of_rows(params: PyTree, batch: Batch) -> tuple[PyTree, dict[str, Any]]:
    """Returns the parameters for the rows of a batch, and what `encode` takes for them.

    Args:
      params: Parameters; with `TABLE` among them if the batch has `INDEX`.
      batch: Model features.

    Returns:
      The parameters, those that a method added with an axis for the rows in front: [B, ...], stacked [B, layers, ...];
      and `prompt` [B, P, H] float32 with `prompt_mask` [B, P]. For a batch in which every row takes the model's own,
      the parameters as they are and nothing.
    """
    if INDEX not in batch:
        return params, {}
    table, index = params[TABLE], jnp.asarray(batch[INDEX])
    rows = jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=0), dict(table))
    if "added" in rows:
        own = {name: node for name, node in params.items() if name != TABLE}
        # A loop over stacked layers takes its slices from the second axis, where these have their layers too.
        params = tree.unflatten({**tree.flatten(own), **rows["added"]})
    if "prompts" not in rows:
        return params, {}
    return params, {"prompt": rows["prompts"], "prompt_mask": rows["mask"]}
