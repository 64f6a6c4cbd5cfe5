"""A fingerprint of parameters that says whether two sets are the same weights.

It does not depend on how they are stored (float32 or bfloat16), spread (one device or a mesh) or laid out (scanned or
not); kernels in int8 are other weights than those they were made from. It is computed where the weights live, block by
block: only four bytes a layer come to the host, and no device needs room for more than a block.
"""

import functools
import math
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils

from prompt_tuning.data import content
from prompt_tuning.params import layouts
from prompt_tuning.params.names import TABLE
from prompt_tuning.types import Array

# Elements of a shard that are summed at a time; XLA holds a few uint32 arrays of this size.
_BLOCK = 2**20


def params_digest(flat_params: Mapping[str, Array]) -> str:
    """Returns a SHA-256 over names, shapes and contents.

    Contents enter through a checksum of the bfloat16 roundings, `sum(bits * (2 * position + 1)) mod 2^32`. An odd
    factor is invertible and bits change by less than 2^16, so that a change of any one element is always seen.

    Args:
      flat_params: Parameter path -> float or int8 array, in either layout. With several processes, all call this.

    Returns:
      64 hexadecimal digits.
    """
    digest = Digest()
    digest.add(flat_params)
    return digest.hexdigest()


class Digest:
    """`params_digest` of parameters that are never all at hand at once."""

    def __init__(self):
        """Begins without parameters."""
        # Unscanned name -> (shape, checksum).
        self._lines: dict[str, tuple[tuple[int, ...], int]] = {}

    def add(self, flat_params: Mapping[str, Array]) -> None:
        """Adds parameters.

        Args:
          flat_params: As of `params_digest`; none may come twice.
        """
        # All checksums are under way before the first is waited for.
        pending = {path: _shard_checksums_of(path, leaf) for path, leaf in flat_params.items()}
        sums = {path: _to_host(parts) for path, parts in pending.items()}
        _add_other_processes(flat_params, sums)
        for path, values in sums.items():
            shape = tuple(flat_params[path].shape)
            names = layouts.unscanned_paths(path, len(values), relative_bias_per_layer=True)
            if layouts.is_stacked(path):
                shape = layouts.layer_shape(path, shape)
            for name, value in zip(names, values, strict=True):
                assert name not in self._lines, name
                self._lines[name] = (shape, int(value))

    def hexdigest(self) -> str:
        """Returns the digest of all parameters added so far."""
        lines = dict(self._lines)
        for stack in ("encoder", "decoder"):
            is_table = re.compile(rf"{stack}/layers_\d+/{TABLE}").fullmatch
            tables = [name for name in lines if is_table(name)]
            if len({lines[name] for name in tables}) == 1:
                # The same table in every layer is one table in the unscanned layout.
                lines[f"{stack}/{TABLE}"] = [lines.pop(name) for name in tables][0]
        text = "".join(sorted(f"{n} {list(shape)} {v}\n" for n, (shape, v) in lines.items()))
        return content.of_bytes(text)


# (where its layers begin, how many layers there are in all, its checksums [layers of the shard]) of every shard.
_Parts = list[tuple[int, int, jax.Array]]


def _shard_checksums_of(path: str, leaf: Array) -> _Parts:
    """The checksums of the shards that this process answers for; a parameter that is not stacked has one layer."""
    leaf = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    axis = layouts.LAYERS_AXIS if layouts.is_stacked(path) else None
    inner = [size for i, size in enumerate(leaf.shape) if i != axis]
    assert math.prod(inner) < 2**31, leaf.shape
    # Positions count as in the unscanned layout: layer by layer, heads joined with their width.
    strides = [math.prod(inner[i + 1 :]) for i in range(len(inner))]
    if axis is not None:
        strides.insert(axis, 0)
    parts = []
    for shard in leaf.addressable_shards:
        if shard.replica_id == 0:
            starts = [s.start or 0 for s in shard.index]
            place = np.asarray([strides, starts], np.uint32).reshape(2, -1)
            first = 0 if axis is None else starts[axis]
            total = 1 if axis is None else leaf.shape[axis]
            parts.append((first, total, _checksums(shard.data, place, axis)))
    return parts


def _to_host(parts: _Parts) -> np.ndarray:
    """The sum [layers] uint32 of the checksums of some shards of one parameter."""
    sums = np.zeros(parts[0][1] if parts else 0, np.uint32)
    for first, _, checksums in parts:
        values = np.asarray(jax.device_get(checksums))
        sums[first : first + len(values)] += values
    return sums


def _checksums(shard: jax.Array, place: np.ndarray, axis: int | None) -> jax.Array:
    """The checksums [layers] of a shard, whose layers are along `axis`; `place` has strides and starts [2, ndim]."""
    if not shard.ndim:
        shard, place = shard[None], np.zeros((2, 1), np.uint32)
    rows = shard.shape[0]
    block = min(rows, max(1, _BLOCK // math.prod(shard.shape[1:])))
    total = np.zeros(1 if axis is None else shard.shape[axis], np.uint32)
    # Not a loop on the device: compilers for CPUs widen all of a bfloat16 array that is cut in a loop.
    for begin in range(0, rows, block):
        total = _add_block(total, shard, place, np.int32(begin), axis, block)
    return jnp.asarray(total)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _add_block(
    total: Array, shard: Array, place: Array, begin: Array, axis: int | None, block: int
) -> jax.Array:
    """`total` and the checksums of the `block` rows from `begin` on."""
    # The last block is moved to end with the array; what it shares with the one before was counted there.
    first = jnp.minimum(begin, shard.shape[0] - block)
    part = lax.dynamic_slice_in_dim(shard, first, block)
    position = jnp.zeros(part.shape, jnp.uint32)
    for dim in range(part.ndim):
        index = lax.broadcasted_iota(jnp.uint32, part.shape, dim) + place[1, dim]
        index += first.astype(jnp.uint32) if dim == 0 else jnp.uint32(0)
        position += index * place[0, dim]
    terms = _bits(part).astype(jnp.uint32) * (position * jnp.uint32(2) + jnp.uint32(1))
    row = lax.broadcasted_iota(jnp.int32, part.shape, 0) + first
    terms = jnp.where(row >= begin, terms, jnp.uint32(0))
    others = tuple(i for i in range(part.ndim) if i != axis)
    # uint32 wraps: addition modulo 2^32 gives the same sum in any order, so on any mesh.
    return jnp.asarray(total) + jnp.sum(terms, axis=others, dtype=jnp.uint32).reshape(total.shape)


def _add_other_processes(params: Mapping[str, Array], sums: dict[str, np.ndarray]) -> None:
    """Adds to the sums what other processes found in the shards that they hold."""
    spread = {
        path: leaf.shape[layouts.LAYERS_AXIS] if layouts.is_stacked(path) else 1
        for path, leaf in params.items()
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
    }
    if not spread:
        return
    here = [
        np.resize(sums[path], n) if sums[path].size else np.zeros(n) for path, n in spread.items()
    ]
    everywhere = multihost_utils.process_allgather(np.concatenate(here).astype(np.uint32))
    total = np.asarray(everywhere).sum(axis=0, dtype=np.uint32)
    ends = np.cumsum(list(spread.values()))[:-1]
    sums.update(zip(spread, np.split(total, ends), strict=True))


def _bits(leaf: Array) -> jax.Array:
    """The bits of int8, or of the bfloat16 roundings, uint16; in integers, as devices round subnormals differently."""
    if leaf.dtype == jnp.int8:
        return lax.bitcast_convert_type(leaf, jnp.uint8).astype(jnp.uint16)
    if leaf.dtype == jnp.bfloat16:
        bits = lax.bitcast_convert_type(leaf, jnp.uint16)
    else:
        assert leaf.dtype == jnp.float32, leaf.dtype
        wide = lax.bitcast_convert_type(leaf, jnp.uint32)
        to_even = (wide >> jnp.uint32(16)) & jnp.uint32(1)
        bits = ((wide + jnp.uint32(0x7FFF) + to_even) >> jnp.uint32(16)).astype(jnp.uint16)
    # Some devices flush subnormals when they cast, so those count as zero.
    return jnp.where(bits & jnp.uint16(0x7F80) == jnp.uint16(0), jnp.uint16(0), bits)
