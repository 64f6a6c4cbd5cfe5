"""Gemma's norm."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.models import layers
from prompt_tuning.models.config import Architecture
from prompt_tuning.types import Array


class RMSNorm(nn.Module):
    """Scaled by the root mean square and by 1 + `scale`, all in float32.

    Attributes:
      config: The architecture.
      axis: Logical name of the last axis.
    """

    config: Architecture
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*shape H"]) -> Float[jax.Array, "*shape H"]:
        """Returns the normed input in the activation dtype."""
        width = x.shape[-1]
        wide = jnp.asarray(x, jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + layers.NORM_EPSILON)
        dtype = self.config.parameter_dtype
        scale = layers.param("scale", nn.initializers.zeros, (width,), dtype, (self.axis,))
        factor = 1.0 + jnp.asarray(scale, jnp.float32).reshape((1,) * (x.ndim - 1) + (width,))
        return (normed * factor).astype(self.config.activation_dtype)
