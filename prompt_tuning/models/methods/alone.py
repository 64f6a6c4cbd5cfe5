"""What a method makes of a prompt, without the rest of a model: how prompts of tasks are folded into plain ones."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from prompt_tuning.models.methods.method import Joining, Method
from prompt_tuning.types import Array


class _Encoder(nn.Module):
    """An encoder that is the place of a method's parameters, and nothing else."""

    method: Method

    @nn.compact
    def __call__(self, prompt: Any, embedded: Any, is_token: Any, task: Any) -> Any:
        """Returns the prompt."""
        return self.method.prompt_of(Joining(self, embedded, is_token, task), prompt)


def prompt_alone(
    method: Method,
    added: Mapping[str, Array],
    prompt: Float[Array, "*B P H"] | None,
    embedded: Float[Array, "B L H"],
    *,
    is_token: Bool[Array, "B L"] | None = None,
    task: Int[Array, " B"] | None = None,
) -> Any:
    """Returns `method.prompt_of` of a model with certain parameters.

    Args:
      method: The method.
      added: What it adds to the encoder: name -> array.
      prompt: The model's own prompt; None where there is none.
      embedded: Embedded tokens.
      is_token: Where these are no padding; None for everywhere.
      task: [B] number of each row's task.
    """
    embedded = jnp.asarray(embedded)
    is_token = jnp.ones(embedded.shape[:2], jnp.bool_) if is_token is None else is_token
    return _Encoder(method).apply({"params": dict(added)}, prompt, embedded, is_token, task)
