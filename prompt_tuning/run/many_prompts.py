"""Many tuned sets over one copy of the frozen weights: read and checked, and given to examples by number."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
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
from prompt_tuning.params.names import is_added, is_method, is_prompt
from prompt_tuning.prompts import table
from prompt_tuning.run.method_start import arrays_of
from prompt_tuning.types import Array

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


def check_method(model: EncoderDecoderModel) -> None:
    """Raises ConfigError if the model's method leaves plain prompts, or has a prompt for each task by itself."""
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


def read(path: str, model: EncoderDecoderModel) -> TunedSet:
    """Returns what a run tuned, and what is recorded of it.

    Args:
      path: What `prompt-tuning export` takes: a file, a MODEL_DIR (its latest step) or a checkpoint of a run.
      model: A model with a prompt takes a prompt, one with a method what that added, one with both takes both.

    Raises:
      CheckpointError: If there is none, it is damaged, or of another model.
      ConfigError: As `check_method`.
    """
    check_method(model)
    prompt, added, info = None, {}, {}
    if model.prompt is not None or model.method is None:
        found, info = read_source(path, setting=_SETTING)
        prompt = matrices.check_matrix(
            found, epath.Path(path), what="prompt", setting=_SETTING, width=model.config.emb_dim
        )
    if any(map(is_method, model.param_shapes)):
        read = read_set(path, setting=_SETTING)
        info = {**read.info, **info}
        added = _layers_first(arrays_of(model, read, _SETTING))
    return TunedSet(prompt, added, info)


def own(
    model: EncoderDecoderModel, params: Mapping[str, Array], untuned: Collection[str]
) -> TunedSet:
    """Returns what a model has of its own as a row beside others.

    Args:
      model: The model.
      params: Its parameters by path.
      untuned: Those of them that come from their initializers; a prompt that does is left out.
    """
    check_method(model)
    arrays = {p: np.asarray(x, np.float32) for p, x in params.items() if is_added(p)}
    prompts = [x for p, x in arrays.items() if is_prompt(p) and p not in untuned]
    empty = np.zeros((0, model.config.emb_dim), np.float32)
    has_prompts = model.prompt is not None or model.method is None
    return TunedSet(
        [*prompts, empty][0] if has_prompts else None,
        _layers_first({p: x for p, x in arrays.items() if is_method(p)}),
        {},
    )


def make_table(sets: Sequence[TunedSet], *, longest: int = 0) -> dict[str, Any]:
    """Returns the table of some sets for one model, for prompts of `longest` positions at least."""
    prompts = [s.prompt for s in sets if s.prompt is not None]
    return table.make_table(prompts, [s.added for s in sets if s.added], longest=longest)


def _layers_first(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        path: np.moveaxis(x, layouts.LAYERS_AXIS, 0) if layouts.is_stacked(path) else x
        for path, x in arrays.items()
    }


def with_prompt(features: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Returns an example's features with the number of its prompt in the table."""
    return {**features, table.INDEX: np.int32(number)}
