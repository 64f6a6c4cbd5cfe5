"""Many prompts over one copy of the frozen weights: read and checked, and given to examples by number."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning import tree
from prompt_tuning.checkpoints import load as initial
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.checkpoints.prompt_files import matrices
from prompt_tuning.checkpoints.prompt_files import source as prompt_source
from prompt_tuning.data.inference_examples import TASK_KEY, InferenceExample
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import table
from prompt_tuning.run.start import Loaded, check_recorded, load_frozen

_SETTING = "--prompts"


def load(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    restore: RestoreCheckpointConfig,
    prompt_files: Sequence[str],
) -> Loaded:
    """Returns the frozen parameters of a checkpoint with a table of prompts in place of the model's own prompt.

    Args:
      model: The model.
      partitioner: Mesh and axis rules; the table is whole on every device.
      restore: The checkpoint; a prompt that it holds is not read.
      prompt_files: A prompt each, in any form that `read` takes; row k of the table is file k.

    Raises:
      CheckpointError: If the checkpoint does not fit the model, a prompt cannot be read, or one of them was trained on
        other frozen weights.
    """
    # Read before the weights, so that a prompt of another model is refused at once.
    prompts = [read(path, width=model.config.emb_dim) for path in prompt_files]
    source = initial.open_source(restore.path or "", mode=restore.mode)
    params, _ = load_frozen(source, model, partitioner, restore.dtype)
    records = [(f"checkpoint {source.path}", getattr(source, "metadata", {}))]
    for path, (_, info) in zip(prompt_files, prompts, strict=True):
        records.append((f"prompt file {path}", info))
    check_recorded(records, params, restore.dtype)
    rows = table.make_table([prompt for prompt, _ in prompts])
    placed = jax.device_put(rows, partitioner.replicated)
    return Loaded({**tree.unflatten(params), table.TABLE: placed}, source.step or 0)


def read(path: str, *, width: int | None = None) -> tuple[Float[np.ndarray, "P H"], dict[str, Any]]:
    """Returns a prompt [P, H] float32 and what is recorded of it.

    Args:
      path: What `prompt-tuning export` takes: a prompt file, a MODEL_DIR (its latest prompt) or a checkpoint of a run.
      width: H of the model; None allows any.

    Raises:
      CheckpointError: If there is no prompt, it is damaged, or of another width.
    """
    prompt, info = prompt_source.read_source(path, setting=_SETTING)
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
