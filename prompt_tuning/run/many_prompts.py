"""Many tuned sets over one copy of the frozen weights: read and checked, and given to examples by number."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.checkpoints.method_files.folded import is_folded
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.prompt_files import matrices
from prompt_tuning.checkpoints.prompt_files.source import read_source
from prompt_tuning.data import content
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import layouts
from prompt_tuning.params.names import is_method
from prompt_tuning.prompts import table
from prompt_tuning.run.method_start import arrays_of

_SETTING = "--prompts"


@dataclasses.dataclass(frozen=True)
class TunedSet:
    """What one run tuned, for one row of the table.

    Attributes:
      prompt: [P, H] float32; None for a model that is tuned by a method alone.
      added: What a method added, by the model's paths, layers first where they are stacked.
      info: What is recorded of it.
    """

    prompt: Float[np.ndarray, "P H"] | None
    added: dict[str, np.ndarray]
    info: dict[str, Any]

    def digest(self) -> str:
        """Returns the SHA-256 of the prompt's numbers, and of the others where there are some."""
        arrays = [] if self.prompt is None else [self.prompt]
        arrays += [x for _, x in sorted(self.added.items())]
        return content.of_bytes(b"".join(x.tobytes() for x in arrays))


def read(path: str, model: EncoderDecoderModel) -> TunedSet:
    """Returns what a run tuned, and what is recorded of it.

    Args:
      path: What `prompt-tuning export` takes: a file, a MODEL_DIR (its latest step) or a checkpoint of a run.
      model: A model with a prompt takes a prompt, one with a method what that added, one with both takes both.

    Raises:
      CheckpointError: If there is none, it is damaged, or of another model.
      ConfigError: If the model's method leaves plain prompts, or has a prompt for each task by itself.
    """
    if model.method is not None and model.method.task_names:
        raise ConfigError(
            f"{_SETTING} gives rows prompts of their own, and so does methods.{type(model.method).__name__}",
            got=f"{_SETTING} beside a method of {len(model.method.task_names)} tasks",
            expected="one or the other",
            fix=f"leave {_SETTING} out and name the task of each example, or export each task's prompt as a plain one",
        )
    if model.method is not None and is_folded(model.method.describe()):
        raise ConfigError(
            f"{_SETTING} takes prompts, and what {type(model.method).__name__} trains is one once it is trained",
            got="a model with this method",
            expected="one without",
            fix="bind METHOD = None",
        )
    prompt, added, info = None, {}, {}
    if model.prompt is not None or model.method is None:
        found, info = read_source(path, setting=_SETTING)
        prompt = matrices.check_matrix(
            found, epath.Path(path), what="prompt", setting=_SETTING, width=model.config.emb_dim
        )
    if any(map(is_method, model.param_shapes)):
        read = read_set(path, setting=_SETTING)
        info = {**read.info, **info}
        added = {
            p: np.moveaxis(x, layouts.LAYERS_AXIS, 0) if layouts.is_stacked(p) else x
            for p, x in arrays_of(model, read, _SETTING).items()
        }
    return TunedSet(prompt, added, info)


def make_table(sets: Sequence[TunedSet]) -> dict[str, Any]:
    """Returns the table of some sets for one model."""
    prompts = [s.prompt for s in sets if s.prompt is not None]
    return table.make_table(prompts, [s.added for s in sets if s.added])


def with_prompt(features: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns an example's features with the number of its prompt in the table."""
    return {**features, table.INDEX: np.int32(number)}
