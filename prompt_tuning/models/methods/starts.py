"""Initial values that methods share."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def as_pytorch(num_inputs: int) -> Callable[..., jax.Array]:
    """Returns how PyTorch starts the weights and biases of a linear map: U[-b, b) with b = 1 / sqrt(inputs).

    Args:
      num_inputs: Inputs of the map.
    """
    bound = 1.0 / math.sqrt(num_inputs)

    def init(rng: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(rng, tuple(shape), dtype, -bound, bound)

    return init
