"""The prompt, whose modules name its path `encoder/prompt/prompt/prompt`, and its place in front of the tokens."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jaxtyping import Float, Int

from prompt_tuning.errors import ConfigError
from prompt_tuning.prompts import initializers
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
    """The encoder's own prompt, by the name that the authors' code gives the part of the encoder that holds it.

    Attributes:
      config: Length and initializer of the parameter.
      width: H, the width of the model.
    """

    config: PromptConfig
    width: int

    @nn.compact
    def __call__(self) -> Float[jax.Array, "P H"]:
        """Returns the parameter [P, H], float32."""
        return Prompt(self.config, self.width, name="prompt")()


def join_prompt(
    embedded: Float[Array, "B L H"],
    prompt: Float[Array, "*B P H"],
    positions: Int[Array, "B L"] | None = None,
) -> Float[jax.Array, "B S H"]:
    """Returns [B, P + L, H], or with `positions` [B, L, H], where the prompt has its places already."""
    if positions is not None:
        return place_prompt(embedded, jnp.asarray(prompt), positions)
    return prepend_prompt(embedded, jnp.asarray(prompt))


def place_prompt(
    embedded: Float[Array, "B L H"], prompt: Float[Array, "*B P H"], positions: Int[Array, "B L"]
) -> Float[jax.Array, "B L H"]:
    """Returns embedded tokens with rows of the prompt at the places that packed examples keep for it.

    Args:
      embedded: [B, L, H] embedded tokens.
      prompt: [P, H], the same for each example; any floating dtype.
      positions: [B, L] row of the prompt, from 1; 0 leaves what is there.

    Returns:
      [B, L, H] in the dtype of `embedded`.

    Raises:
      ConfigError: If there is a prompt per row, or the prompt has another width.
    """
    width = embedded.shape[-1]
    if prompt.ndim != 2 or prompt.shape[-1] != width:
        raise ConfigError(
            "Packed examples take one prompt for all of them",
            got=tuple(prompt.shape),
            expected=f"[P, {width}]",
            fix="set pack = False in the DatasetConfig",
        )
    positions = jnp.asarray(positions)
    # A product with one-hot rows: exact at full precision, and its gradient adds up in one order on every device, as a
    # gather's does not.
    one_hot = jax.nn.one_hot(positions - 1, prompt.shape[0], dtype=embedded.dtype)
    rows = jnp.einsum(
        "blp,ph->blh",
        one_hot,
        jnp.asarray(prompt, embedded.dtype),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.where((positions > 0)[..., None], rows, jnp.asarray(embedded))


def prepend_prompt(
    embedded: Float[Array, "B L H"], prompt: Float[Array, "*B P H"]
) -> Float[jax.Array, "B S H"]:
    """Returns the prompt followed by the embedded tokens.

    Args:
      embedded: [B, L, H] embedded tokens.
      prompt: [P, H], the same for each row, or [B, P, H]; any floating dtype.

    Returns:
      [B, P + L, H] in the dtype of `embedded`.

    Raises:
      ConfigError: If the prompt has another width or batch size.
    """
    batch, _, width = embedded.shape
    if (
        prompt.ndim not in (2, 3)
        or prompt.shape[-1] != width
        or prompt.shape[:-2] not in ((), (batch,))
    ):
        raise ConfigError(
            "The prompt does not fit the embedded input",
            got=tuple(prompt.shape),
            expected=f"[P, {width}] or [{batch}, P, {width}]",
            fix="use a prompt that was trained for a model of this width, with one row per example or one for all",
        )
    prompt = jnp.asarray(prompt, embedded.dtype)
    if prompt.ndim == 2:
        prompt = jnp.broadcast_to(prompt[None], (batch, *prompt.shape))
    return jnp.concatenate([prompt, jnp.asarray(embedded)], axis=1)
