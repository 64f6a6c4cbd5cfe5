"""A fingerprint of parameters that says whether two sets are the same weights.

It does not depend on how they are stored (float32 or bfloat16), spread (one device or a mesh) or laid out (scanned or
not). It is computed where the weights live: only four bytes a leaf come to the host.
"""

import functools
import hashlib
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning import layouts
from prompt_tuning.types import Array


def params_digest(flat_params: Mapping[str, Array]) -> str:
    """Returns a SHA-256 over names, shapes and contents.

    Contents enter through a checksum of the bfloat16 roundings, `sum(bits * (2 * position + 1)) mod 2^32`. An odd
    factor is invertible and bits change by less than 2^16, so that a change of any one element is always seen.

    Args:
      flat_params: Parameter path -> float array, in either layout.

    Returns:
      64 hexadecimal digits.
    """
    # All checksums are under way before the first is waited for.
    pending = [_parts_of(path, leaf) for path, leaf in flat_params.items()]
    lines: list[str] = []
    for names, shape, checksums in pending:
        values = [int(value) for value in jax.device_get(checksums)]
        if len(names) < len(values):
            # One table for all layers in the unscanned layout; layers that were trained apart count each.
            assert len(names) == 1, names
            same = len(set(values)) == 1
            names = names if same else [f"{names[0]} of layer {i}" for i in range(len(values))]
            values = values[: len(names)]
        lines += [f"{n} {list(shape)} {v}\n" for n, v in zip(names, values, strict=True)]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _parts_of(path: str, leaf: Array) -> tuple[list[str], tuple[int, ...], jax.Array]:
    """Unscanned names, the shape of each, and the checksums [parts]."""
    if not layouts.is_stacked(path):
        return [path], tuple(leaf.shape), _checksum(leaf)[None]
    num_layers = leaf.shape[layouts.LAYERS_AXIS]
    names = layouts.unscanned_paths(path, num_layers)
    abstract = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    parts = jax.eval_shape(functools.partial(layouts.split_layers, path), abstract)
    return names, parts[names[0]].shape, _layer_checksums(leaf, path)


@functools.partial(jax.jit, static_argnums=1)
def _layer_checksums(leaf: Array, path: str) -> jax.Array:
    """The checksum [layers] of each layer of a stacked parameter."""
    checksums = []
    for i in range(leaf.shape[layouts.LAYERS_AXIS]):
        layer = lax.slice_in_dim(leaf, i, i + 1, axis=layouts.LAYERS_AXIS)
        (part,) = layouts.split_layers(path, layer).values()
        checksums.append(_checksum(part))
    return jnp.stack(checksums)


@jax.jit
def _checksum(leaf: Array) -> jax.Array:
    """The checksum of one array, scalar uint32."""
    assert math.prod(leaf.shape) < 2**31, leaf.shape
    bits = _bfloat16_bits(leaf).astype(jnp.uint32)
    position = jnp.zeros(leaf.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(leaf.ndim)):
        index = lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        position = position + index * jnp.uint32(stride)
        stride *= leaf.shape[axis]
    # uint32 wraps: addition modulo 2^32 gives the same sum in any order, so on any mesh.
    return jnp.sum(bits * (position * jnp.uint32(2) + jnp.uint32(1)), dtype=jnp.uint32)


def _bfloat16_bits(leaf: Array) -> jax.Array:
    """The bits of the bfloat16 roundings, uint16; in integers, as hardware rounds subnormals each its own way."""
    if leaf.dtype == jnp.bfloat16:
        bits = lax.bitcast_convert_type(leaf, jnp.uint16)
    else:
        assert leaf.dtype == jnp.float32, leaf.dtype
        wide = lax.bitcast_convert_type(leaf, jnp.uint32)
        to_even = (wide >> jnp.uint32(16)) & jnp.uint32(1)
        bits = ((wide + jnp.uint32(0x7FFF) + to_even) >> jnp.uint32(16)).astype(jnp.uint16)
    # Some devices flush subnormals when they cast, so those count as zero.
    return jnp.where(bits & jnp.uint16(0x7F80) == jnp.uint16(0), jnp.uint16(0), bits)
