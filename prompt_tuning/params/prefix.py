"""The network that makes a prefix's keys and values: what training computes, and what it is folded into."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning.params import layouts
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


def is_made(method: Mapping[str, Any] | None) -> bool:
    """Returns whether a network makes what this method, as `Method.describe` has it, puts in front."""
    return (method or {}).get("name") == "Prefix" and method["hidden"] is not None  # pyright: ignore


def fold(
    arrays: Mapping[str, Array], method: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns the keys and values that a network makes, and the method that trains such.

    Args:
      arrays: Path in either layout -> array; others than the network's are left as they are.
      method: As `Method.describe` has it.

    Returns:
      Path in the unscanned layout -> array, and the method's description.
    """
    apart = layouts.take_apart(arrays)
    others = {path: x for path, x in apart.items() if "/prefix_" not in path}
    return others | jax.jit(_fold)(apart), {**method, "hidden": None}


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
