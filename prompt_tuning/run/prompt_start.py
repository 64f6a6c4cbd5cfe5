"""Where a prompt comes from that no checkpoint holds: its initializer, or the file that the config names."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prompt_tuning.checkpoints import hub, load, paths
from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.folded import FOLDED, is_folded
from prompt_tuning.checkpoints.prompt_files import read
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import is_prompt
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts import initializers
from prompt_tuning.prompts.config import PromptConfig


def make_prompt(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    embedding: jax.Array,
    sharding: Any,
    rng: jax.Array,
) -> jax.Array:
    """Returns the prompt [P, H] float32 that the model's initializer makes from the frozen embedding table."""
    prompt = model.prompt
    assert prompt is not None, "a prompt path exists only in a model with a prompt"
    if (path := prompt_file_of(prompt)) is not None:
        check_whole(model, [(f"prompt file {path}", read.load_prompt(path)[1] or {})])
    with partitioner.activate():
        array = initializers.build_prompt(
            prompt.prompt_init,
            length=prompt.length,
            embedding_table=embedding,
            encode_text=model.input_vocabulary.encode,
            rng=rng,
            embedding_scale=model.config.embedding_scale,
        )
    return jax.device_put(array, sharding)


def prompt_file_of(prompt: PromptConfig | None) -> str | None:
    """Returns PROMPT_FILE if the prompt comes from a file that the config names."""
    spec = prompt.prompt_init if prompt else None
    return spec.path if isinstance(spec, initializers.FromFile) else None


def check_whole(
    model: EncoderDecoderModel, records: Sequence[tuple[str, Mapping[str, Any]]]
) -> None:
    """Checks that no prompt which a method made something else of is taken for all that it was.

    Args:
      model: The model that takes prompts.
      records: What the runs recorded that left them, `(of what, record)`.

    Raises:
      CheckpointError: If the model has no such method.
    """
    parts = model.method.parts if model.method else ()
    ours = [type(part).__name__ for part in parts]
    for what, recorded in records:
        name = next((n for n in kinds.changing_prompt(recorded) if n not in ours), None)
        if model.prompt is not None and name is not None:
            raise CheckpointError(
                f"The prompt of {what} is a part of what methods.{name} puts in front of inputs",
                got=f"a model with METHOD = {ours or None}",
                expected=f"methods.{name}",
                fix="add its file of methods/ to the gin files, or use what `prompt-tuning export` makes of it"
                " (--task=NAME where it tells tasks apart)",
            )


def check_source(model: EncoderDecoderModel, source: ParamSource | None) -> None:
    """Raises CheckpointError if a checkpoint has the model's prompt, and as a part of what stood in front there."""
    prompts = {path: x.shape for path, x in model.param_shapes.items() if is_prompt(path)}
    if source and any(load.holds(source, path, shape) for path, shape in prompts.items()):
        check_whole(model, [(f"checkpoint {source.path}", getattr(source, "metadata", {}))])


def prompt_origin(prompt: PromptConfig | None) -> dict[str, Any] | None:
    """Returns what a run records of the prompt file that it starts from; None if it starts from none."""
    path = prompt_file_of(prompt)
    if path is None:
        return None
    array, info = read.load_prompt(path)
    kept = {name: (info or {}).get(name) for name in ("task", "step", "frozen_digest")}
    digest = content.of_bytes(array.tobytes())
    return {"path": hub.pinned(paths.absolute(path)), "sha256": digest, **kept}


def read_prompt_info(model: EncoderDecoderModel, path: str) -> dict[str, Any]:
    """Returns what is recorded of the prompt that a model is evaluated with.

    Args:
      model: The model.
      path: PROMPT_FILE.

    Raises:
      CheckpointError: If the prompt cannot be read, is of another width, or would be changed by the model's method,
        which made it what it is.
    """
    _, info = read.load_prompt(path, width=model.config.emb_dim)
    if FOLDED in (info or {}) and model.method and is_folded(model.method.describe()):
        name = type(model.method).__name__
        raise CheckpointError(
            f"PROMPT_FILE holds what {name} made of a prompt, and {name} would change it again",
            got=path,
            expected="METHOD = None for a prompt that is trained",
            fix="leave the file of methods/ out",
        )
    return info or {}
