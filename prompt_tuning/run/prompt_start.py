"""Where a prompt comes from that no checkpoint holds: its initializer, or the file that the config names."""

import hashlib
from typing import Any

import jax

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.prompt_files import read
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
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


def prompt_origin(prompt: PromptConfig | None) -> dict[str, Any] | None:
    """Returns what a run records of the prompt file that it starts from; None if it starts from none."""
    path = prompt_file_of(prompt)
    if path is None:
        return None
    array, info = read.load_prompt(path)
    kept = {name: (info or {}).get(name) for name in ("task", "step", "frozen_digest")}
    content = hashlib.sha256(array.tobytes()).hexdigest()
    return {"path": str(paths.absolute(path)), "sha256": content, **kept}
