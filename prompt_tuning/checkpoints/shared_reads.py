"""Reads once what several processes hold alike: each reads its share, and the devices exchange what they lack.

Every host of a pod holds a whole model where only the batch is spread over hosts. To read it takes most of a start, to
exchange it over the accelerator's own network a fraction of that.
"""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# Smaller parameters are read by every process: a request each, and hardly a byte. Unit: bytes.
MIN_BYTES = 4 * 2**20


def shares_of(
    sharding: jax.sharding.Sharding, shape: tuple[int, ...], dtype: np.dtype
) -> jax.sharding.Sharding:
    """Returns how to read a parameter.

    Args:
      sharding: How it is to be held.
      shape: Its shape.
      dtype: Its dtype.

    Returns:
      `sharding`, cut further along the mesh axis `data` where processes would hold the same and a dimension allows it.
    """
    is_small = math.prod(shape) * dtype.itemsize < MIN_BYTES
    if jax.process_count() == 1 or is_small or not isinstance(sharding, NamedSharding):
        return sharding
    mesh = sharding.mesh.shape
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    axes: list[tuple[str, ...]] = [(a,) if isinstance(a, str) else tuple(a or ()) for a in spec]
    if mesh.get("data", 1) == 1 or any("data" in names for names in axes):
        return sharding
    # The first dimension that can be cut: blocks in storage are most often stretches of it.
    for dim, size in enumerate(shape):
        if size % math.prod(mesh[name] for name in (*axes[dim], "data")) == 0:
            axes[dim] = (*axes[dim], "data")
            return NamedSharding(sharding.mesh, PartitionSpec(*axes))
    return sharding


def exchange(array: jax.Array, sharding: jax.sharding.Sharding) -> jax.Array:
    """Returns the array as it is to be held; every process calls this in the same order."""
    return array if array.sharding == sharding else _exchanging(sharding)(array)


@functools.cache
def _exchanging(sharding: jax.sharding.Sharding) -> Callable[[jax.Array], jax.Array]:
    """The program that does it."""
    return jax.jit(lambda array: array, out_shardings=sharding)
