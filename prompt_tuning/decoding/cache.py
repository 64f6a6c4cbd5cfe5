"""The decoder's cache: where its columns go, and its rows when one row of the batch is decoded several times."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.types import PyTree


def append(cached: jax.Array, column: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the cache [R, ..., T] with a column [R, ..., 1] at `index`: [], or [R] for rows that began apart."""
    update = functools.partial(lax.dynamic_update_slice_in_dim, axis=-1)
    return (jax.vmap(update) if index.ndim else update)(cached, column, index)


def is_past(index: jax.Array, length: int, window: int | None = None) -> jax.Array:
    """Returns which of `length` columns are at `index` or before it, [1, 1, 1, T]; [R, 1, 1, T] for an index a row.

    With a `window`, only those less than so many columns before it.
    """
    columns = jnp.arange(length, dtype=jnp.int32)
    if index.ndim:
        columns, index = columns[None], index[:, None]
    past = columns <= index
    if window is not None:
        past = jnp.logical_and(past, index - columns < window)
    return past[:, None, None] if index.ndim else past[None, None, None]


def expand_batch(cache: PyTree, batch_size: int, copies: int, *, batch_axis: int = 0) -> PyTree:
    """Repeats every row of the cache: row b becomes rows `b * copies` to `(b + 1) * copies - 1`.

    Args:
      cache: Tree of arrays. Leaves with no axis `batch_axis` (positions) are left as they are.
      batch_size: Rows of the cache.
      copies: How often each row is repeated.
      batch_axis: Axis of the batch: 0, or 1 where layers are scanned.

    Returns:
      A tree of the same structure with `batch_size * copies` rows.
    """

    def expand(leaf: jax.Array) -> jax.Array:
        if leaf.ndim <= batch_axis:
            return leaf
        assert leaf.shape[batch_axis] == batch_size, (leaf.shape, batch_axis, batch_size)
        return jnp.repeat(leaf, copies, axis=batch_axis)

    return jax.tree.map(expand, cache)


def gather_copies(cache: PyTree, copy: jax.Array, *, batch_axis: int = 0) -> PyTree:
    """Reorders the copies that `expand_batch` made, within each row of the batch.

    Args:
      cache: Tree of arrays with B * K rows. Leaves with no axis `batch_axis` (positions) are left as they are.
      copy: [B, K] int32; copy k of row b becomes what copy `copy[b, k]` of row b is now.
      batch_axis: Axis of the batch: 0, or 1 where layers are scanned.

    Returns:
      A tree of the same structure and shapes.
    """

    def gather(leaf: jax.Array) -> jax.Array:
        if leaf.ndim <= batch_axis:
            return leaf
        before, after = leaf.shape[:batch_axis], leaf.shape[batch_axis + 1 :]
        # Rows of the batch stay apart, so that a cache sharded by them is reordered without communication.
        rows = leaf.reshape(*before, *copy.shape, *after)
        take = jax.vmap(functools.partial(jnp.take, axis=batch_axis), (batch_axis, 0), batch_axis)
        return take(rows, copy).reshape(leaf.shape)

    return jax.tree.map(gather, cache)
