"""Putting a prompt in front of embedded input."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Array


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
