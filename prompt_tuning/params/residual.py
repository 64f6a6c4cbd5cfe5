"""The residual reparametrization of a prompt: what training computes, and what it is folded into."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning.types import Array

# Names of the weights; those of the norm are there or not.
DOWN, DOWN_BIAS = "residual_down", "residual_down_bias"
UP, UP_BIAS = "residual_up", "residual_up_bias"
NORM, NORM_BIAS = "residual_norm", "residual_norm_bias"
ACTIVATIONS = {"relu": jax.nn.relu, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid}
NAMES = (DOWN, DOWN_BIAS, UP, UP_BIAS, NORM, NORM_BIAS)
# PyTorch's.
_EPSILON = 1e-5


def reparametrized(
    prompt: Float[Array, "P H"], weights: Mapping[str, Array], *, activation: str, repeats: int
) -> Float[jax.Array, "P H"]:
    """Returns P + MLP(P), the MLP applied `repeats` times in a row with the same weights.

    Args:
      prompt: P, float32.
      weights: Name -> array: kernels [H, hidden] and [hidden, H] with biases, and the scale [H] and bias of a norm
        behind them or neither. With an axis [P] in front each row of the prompt has weights of its own.
      activation: One of `ACTIVATIONS`.
      repeats: How often.
    """
    # A vector for all rows, or one for each.
    of_rows = {
        name: jnp.reshape(w, (-1, w.shape[-1])) if name not in (DOWN, UP) else w
        for name, w in weights.items()
    }
    x = jnp.asarray(prompt)
    for _ in range(repeats):
        x = ACTIVATIONS[activation](_product(x, of_rows[DOWN]) + of_rows[DOWN_BIAS])
        x = _product(x, of_rows[UP]) + of_rows[UP_BIAS]
        if NORM in of_rows:
            x = _standardized(x) * of_rows[NORM] + of_rows[NORM_BIAS]
    return jnp.asarray(prompt) + x


def _product(x: Array, kernel: Array) -> jax.Array:
    """`x` [P, inputs] times a kernel [inputs, outputs], or each row times its own [P, inputs, outputs]."""
    subscripts = "pi,io->po" if kernel.ndim == 2 else "pi,pio->po"
    return jnp.einsum(subscripts, x, kernel, precision=jax.lax.Precision.HIGHEST)


def _standardized(x: jax.Array) -> jax.Array:
    """Rows with mean 0 and variance 1."""
    # `jax.nn.standardize` takes the variance for a difference of squares, which loses digits.
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
