"""Linen modules that hold the prompt parameter; their names make its path `encoder/prompt/prompt/prompt`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jaxtyping import Float

from prompt_tuning.prompts import combine, initializers
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.types import Array

# A name of its own for the second axis keeps the prompt whole on every device, however `embed` is sharded.
PROMPT_AXES = ("prompt", "prompt_embed")


class Prompt(nn.Module):
    """The trainable prompt.

    Attributes:
      config: Length and initializer.
      width: H, the width of the model.
    """

    config: PromptConfig
    width: int

    @nn.compact
    def __call__(self) -> Float[jax.Array, "P H"]:
        """Returns the parameter [P, H], created in float32."""
        shape = (self.config.length, self.width)
        init = initializers.module_initializer(self.config.prompt_init)
        return nn_partitioning.param_with_axes("prompt", init, shape, axes=PROMPT_AXES)


class PromptPrefix(nn.Module):
    """Puts a prompt in front of embedded tokens.

    Attributes:
      config: Length and initializer of the parameter; None if a prompt is always passed.
    """

    config: PromptConfig | None

    @nn.compact
    def __call__(
        self, embedded: Float[Array, "B L H"], prompt: Float[Array, "*B P H"] | None = None
    ) -> Float[jax.Array, "B S H"]:
        """Returns [B, P + L, H]; `prompt` is used instead of the parameter, which is then not read."""
        if prompt is None:
            assert self.config is not None, (
                "the encoder asks for a prefix only if there is a prompt"
            )
            prompt = Prompt(self.config, embedded.shape[-1], name="prompt")()
        return combine.prepend_prompt(embedded, jnp.asarray(prompt))
