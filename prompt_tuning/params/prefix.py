"""The network that makes a prefix's keys and values: what training computes, and what it is folded into."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning.types import Array

# Where a prefix may be -> the stack, and its attention.
PLACES = {
    "encoder": ("encoder", "attention"),
    "decoder": ("decoder", "self_attention"),
    "cross": ("decoder", "encoder_decoder_attention"),
}
# What the layers of a place share stands in the stack: these, behind `prefix_PLACE_`.
SHARED = ("embedding", "kernel", "bias")
# What makes the keys, or the values, of one layer.
_KERNEL = re.compile(r"(encoder|decoder)/layers_\d+/(\w+)/prefix_(key|value)_kernel")


def features(
    embedding: Float[Array, "P H"], kernel: Float[Array, "H _"], bias: Float[Array, " _"]
) -> Float[jax.Array, "P _"]:
    """Returns what the layers of a place share."""
    return jnp.tanh(_product(embedding, kernel) + jnp.asarray(bias)[None])


def made(
    shared: Float[Array, "P F"], kernel: Float[Array, "F W"], bias: Float[Array, " W"]
) -> Float[jax.Array, "P W"]:
    """Returns keys or values of one layer from what the layers of its place share."""
    return _product(shared, kernel) + jnp.asarray(bias)[None]


def _product(a: Array, b: Array) -> jax.Array:
    """A product at full precision on every device, so that what is exported computes what was trained."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def fold(arrays: Mapping[str, Array]) -> dict[str, jax.Array]:
    """Returns the keys and values [P, N*D] of all layers that a network makes, by their paths.

    Args:
      arrays: Path in the unscanned layout -> array; others than the network's are not read.
    """
    return jax.jit(_fold)({path: x for path, x in arrays.items() if "/prefix_" in path})


def _fold(apart: Mapping[str, Array]) -> dict[str, jax.Array]:
    """The keys and values of all layers."""
    out = {}
    for path, kernel in apart.items():
        if (match := _KERNEL.fullmatch(path)) is None:
            continue
        stack, attention, _ = match.groups()
        place = next(p for p, where in PLACES.items() if where == (stack, attention))
        shared = features(*(apart[f"{stack}/prefix_{place}_{part}"] for part in SHARED))
        name = path.removesuffix("_kernel")
        out[name] = made(shared, kernel, apart[f"{name}_bias"])
    return out
