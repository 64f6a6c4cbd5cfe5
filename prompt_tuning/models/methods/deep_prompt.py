"""Deep prompts: rows of their own for the prompt's positions at the input of every layer of the encoder."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_choice
from prompt_tuning.models.methods.method import Layer, Method
from prompt_tuning.params.names import DEEP_PROMPT
from prompt_tuning.prompts.prompt import place_prompt, prepend_prompt

MODES = ("replace", "add")


@dataclasses.dataclass(frozen=True)
class DeepPrompt(Method):
    """A prompt [P, H] for the input of each layer of the encoder, the first one too, where the prompt stands.

    Attributes:
      path: See `Method`.
      mode: "replace": the layer's prompt stands in place of what the layer before made of the prompt; the embedded
        prompt is then not read, and gets no gradient. "add": it is added to that.

    Raises:
      ConfigError: If there is no such mode; on checking, if the model has no prompt.

    Source: the authors' `extended/train/per_layer.py`, `replace_prompt` and `add_prompt`, which start as their
      configuration's prompts do: uniform in [-0.5, 0.5]. Differs: no layer of the decoder has one.
    """

    mode: str = "replace"

    def __post_init__(self) -> None:
        """Checks the mode."""
        check_choice("methods.DeepPrompt.mode", self.mode, MODES)

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError if the model has no prompt; see `Method`."""
        if not added:
            raise ConfigError(
                "methods.DeepPrompt needs a prompt, in whose place its rows stand",
                got="PROMPT = None",
                expected="a prompt of as many rows",
                fix="bind PROMPT = @prompts.Prompt()",
            )

    def layer_input_of(
        self, layer: Layer, x: Float[jax.Array, "B S H"]
    ) -> Float[jax.Array, "B S H"]:
        """Returns the input of a layer with its own prompt in it."""
        length = layer.prompt_length
        if not length:
            return x
        shape, axes = (length, x.shape[-1]), ("prompt", "prompt_embed")
        rows = layer.parameter(DEEP_PROMPT, _uniform, shape, axes, rows=x.shape[0])[:, 0]
        if layer.prompt_positions is None:
            behind = x[:, length:]
            if self.mode == "add":
                rows = x[:, :length] + rows.astype(x.dtype)
            return prepend_prompt(behind, rows if rows.shape[0] > 1 else rows[0])
        if self.mode == "add":
            return x + place_prompt(jnp.zeros_like(x), rows[0], layer.prompt_positions)
        return place_prompt(x, rows[0], layer.prompt_positions)


def _uniform(rng: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Numbers in [-0.5, 0.5]."""
    return nn.initializers.uniform(1.0)(rng, shape, dtype) - 0.5
