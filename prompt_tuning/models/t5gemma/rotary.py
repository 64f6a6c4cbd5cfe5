"""Rotary position embedding: queries and keys turned by angles that grow with their position."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from prompt_tuning.models.t5gemma.config import StackSizes
from prompt_tuning.types import Array


def frequencies(sizes: StackSizes) -> tuple[np.ndarray, np.ndarray]:
    """Returns the angles per position [D / 2] float32 of full layers, and of sliding ones. Unit: radians a token."""
    # float32 step by step, as the checkpoints were trained: position 100,000 shows the rounding.
    exponents = np.arange(0, sizes.head_dim, 2, dtype=np.float32) / np.float32(sizes.head_dim)
    full, sliding = (
        np.float32(1) / np.float32(theta) ** exponents
        for theta in (sizes.rope_theta, sizes.rope_local_theta)
    )
    return full / np.float32(sizes.rope_factor), sliding


def rotate(
    x: Float[jax.Array, "B L N D"], positions: Int[Array, "#B L"], frequency: Float[Array, " half"]
) -> Float[jax.Array, "B L N D"]:
    """Returns queries or keys turned: the first half of a head's width is paired with the second.

    Products of two of them depend on the difference of their positions alone.

    Args:
      x: [B, L, N, D].
      positions: [B or 1, L]. Unit: tokens.
      frequency: [D / 2]. Unit: radians a token.
    """
    angle = jnp.asarray(positions, jnp.float32)[..., None] * jnp.asarray(frequency)[None, None]
    cos, sin = (f(angle)[:, :, None] for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(jnp.asarray(x, jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
