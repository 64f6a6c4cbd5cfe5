"""Many prompts over one copy of the frozen weights: read and checked, and given to examples by number."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints.prompt_files import matrices
from prompt_tuning.checkpoints.prompt_files.source import read_source
from prompt_tuning.data.inference_examples import TASK_KEY, InferenceExample
from prompt_tuning.prompts import table

_SETTING = "--prompts"


def read(path: str, *, width: int | None = None) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns a prompt [P, H] float32 and what is recorded of it.

    Args:
      path: What `prompt-tuning export` takes: a prompt file, a MODEL_DIR (its latest prompt) or a checkpoint of a run.
      width: H of the model; None allows any.

    Raises:
      CheckpointError: If there is no prompt, it is damaged, or of another width.
    """
    prompt, info = read_source(path, setting=_SETTING)
    return matrices.check_matrix(
        prompt, epath.Path(path), what="prompt", setting=_SETTING, width=width
    ), info


def with_prompt(features: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns an example's features with the number of its prompt in the table."""
    return {**features, table.INDEX: np.int32(number)}


def numbered(
    examples: Iterator[InferenceExample], names: Sequence[str]
) -> Iterator[InferenceExample]:
    """Yields examples with the number of the prompt that their `task` names.

    Args:
      examples: With a `task` among what is shown of them.
      names: Names of the prompts, in the table's order.
    """
    for example in examples:
        number = names.index(example.inputs[TASK_KEY])
        yield InferenceExample(example.inputs, with_prompt(example.features, number))
