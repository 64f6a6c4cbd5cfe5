"""Multi-head attention with T5's relative position bias and a key/value cache for decoding."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from prompt_tuning import partitioning
from prompt_tuning.decoding import cache
from prompt_tuning.errors import ConfigError
from prompt_tuning.models import chunked_attention, fused_attention, layers, masks
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.methods.method import Around, Attended, KeysAndValues, Method
from prompt_tuning.types import Array

# (query positions [Q], key positions [K]) -> bias [1, N, Q, K].
PositionBias = Callable[[Array, Array], jax.Array]


@functools.cache
def _bucket_of_distance(num_buckets: int, max_distance: int) -> np.ndarray:
    """Returns the bucket of each distance 0..max_distance; farther ones share the last entry's."""
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1, dtype=np.int32)
    # float32 with this epsilon, as T5 computed it when it was trained: other roundings move distances between buckets.
    nearness = np.log(distance.astype(np.float32) / exact + np.finfo(np.float32).eps)
    log_bucket = exact + (nearness / np.log(max_distance / exact) * (num_buckets - exact)).astype(
        np.int32
    )
    return np.where(distance < exact, distance, np.minimum(log_bucket, num_buckets - 1)).astype(
        np.int32
    )


def relative_position_buckets(
    relative_position: Int[Array, "*shape"],
    *,
    bidirectional: bool,
    num_buckets: int = 32,
    max_distance: int = 128,
) -> Int[Array, "*shape"]:
    """Returns the bucket of each relative position.

    Half of the buckets hold one distance each, the other half grow logarithmically up to `max_distance`.

    Args:
      relative_position: Key position minus query position. Unit: tokens.
      bidirectional: True gives keys after the query buckets of their own (encoder); False counts them as
        distance 0 (decoder, where they are masked).
      num_buckets: Number of buckets.
      max_distance: Distance from which on all share the last bucket. Unit: tokens.

    Returns:
      int32 in [0, num_buckets); a numpy array for a numpy array.

    Source: Raffel et al. 2020, section 2.1; T5X `layers.RelativePositionBiases`. Differs: a lookup table by
      distance, so that traced positions get exactly the buckets of constant ones.
    """
    xp = np if isinstance(relative_position, np.ndarray) else jnp
    behind = xp.asarray(-relative_position, dtype=np.int32)
    offset = xp.zeros_like(behind)
    if bidirectional:
        num_buckets //= 2
        offset = xp.where(behind < 0, np.int32(num_buckets), np.int32(0))
        behind = xp.abs(behind)
    lookup = xp.asarray(_bucket_of_distance(num_buckets, max_distance))
    return offset + lookup[xp.clip(behind, 0, max_distance)]


class RelativePositionTable(nn.Module):
    """The bias of each head for each bucket.

    Attributes:
      config: The architecture.
    """

    config: T5Config

    @nn.compact
    def __call__(self) -> Float[jax.Array, "N buckets"]:
        """Returns the table [N, buckets] in the dtype it is stored in."""
        cfg = self.config
        init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        shape = (cfg.num_heads, cfg.relative_attention_num_buckets)
        return layers.param(
            "rel_embedding", init, shape, cfg.parameter_dtype, ("heads", "relpos_buckets")
        )


def relative_position_bias(
    table: Float[Array, "N buckets"],
    query_positions: Int[Array, " Q"],
    key_positions: Int[Array, " K"],
    *,
    config: T5Config,
    bidirectional: bool,
) -> Float[jax.Array, "1 N Q K"]:
    """Returns the bias that each head adds to the logit of each pair of positions, in the activation dtype."""
    buckets = relative_position_buckets(
        key_positions[None, :] - query_positions[:, None],
        bidirectional=bidirectional,
        num_buckets=config.relative_attention_num_buckets,
        max_distance=config.relative_attention_max_distance,
    )
    # A product with one-hot rows, because TPUs gather slowly; at full precision it is exact.
    one_hot = jax.nn.one_hot(
        buckets, config.relative_attention_num_buckets, dtype=config.activation_dtype
    )
    values = jnp.asarray(table, config.activation_dtype)
    bias = jnp.einsum("nb,qkb->nqk", values, one_hot, precision=jax.lax.Precision.HIGHEST)
    return bias[None]


class Attention(nn.Module):
    """Multi-head attention without biases and without the division by sqrt(D), which T5's initializer absorbs.

    Attributes:
      config: The architecture.
      deterministic: Whether dropout is off.
      use_cache: Whether keys and values are kept in the `cache` collection (self-attention, decoding).
      keep_keys: Whether keys and values are kept in the `encoded` collection where it is mutable, and taken from there
        where it has them (attention to the encoder, decoding).
      trimmed: Keys that were cut off the row as padding; dropout is drawn for them too.
      method: What acts on its linear maps; None for nothing.
    """

    config: T5Config
    deterministic: bool
    use_cache: bool = False
    keep_keys: bool = False
    trimmed: int = 0
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        inputs_q: Float[Array, "R Q H"],
        inputs_kv: Float[Array, "B K H"],
        mask: Bool[Array, "#B 1 Q K"] | None = None,
        position_bias: PositionBias | None = None,
        around: Around | None = None,
    ) -> Float[jax.Array, "R Q H"]:
        """Returns what each query reads.

        With `use_cache`, the first call creates an empty cache as long as its input and attends without it;
        every later call takes one position, appends it, and attends to all positions so far. Keys and values that a
        method puts in front are in the cache from its creation. They take the positions 0.., inputs those behind, and
        every query sees them.

        Args:
          inputs_q: [R, Q, H] queries' inputs; R = B, or a multiple of it where keys are kept: the rows of a batch row
            stand side by side and share its keys.
          inputs_kv: [B, K, H] keys' and values' inputs; not read where they are kept already.
          mask: [B, 1, Q, K], True where attention is allowed; None allows all.
          position_bias: Gives the bias for query and key positions; None adds none.
          around: What the method knows of the stack; None without a method.
        """
        cfg = self.config
        dense = functools.partial(
            layers.Dense,
            cfg,
            distribution="normal",
            join_axes=not cfg.scan_layers,
            method=self.method,
        )
        heads = ("heads", "kv") if cfg.scan_layers else ("joined_kv",)
        project = functools.partial(dense, (cfg.num_heads, cfg.head_dim), ("embed", *heads))
        split = functools.partial(layers.constrain, axes=("batch", "length", "heads", "kv"))
        # The division by sqrt(D) that this attention leaves out is in the query's initial values.
        query = split(project(name="query", variance=1.0 / cfg.head_dim)(inputs_q))
        made = lambda name: split(project(name=name)(inputs_kv))  # noqa: E731
        keys_and_values = lambda: (made("key"), made("value"))  # noqa: E731
        rows, positions = query.shape[:2]
        if self.keep_keys and self._keeps_keys():
            key, value = self._kept(lambda: self._with_added(keys_and_values(), around))
            # Rows that share keys are so many more queries of one row.
            query = query.reshape(key.shape[0], -1, *query.shape[2:])
            mask = masks.with_keys_in_front(mask, key.shape[-1])
            x = self._attend(query, key, value, mask, keys="bndk")
            x = x.reshape(rows, positions, *x.shape[2:])
        elif self.use_cache and self.has_variable("cache", "cached_key"):
            key, value, index = self._append_to_cache(*keys_and_values())
            is_past = cache.is_past(index, key.shape[-1])
            mask = jnp.logical_and(True if mask is None else mask, is_past)
            relative = _bias_at(position_bias, index, key.shape[-1])
            x = self._attend(query, key, value, mask, relative, keys="bndk")
        else:
            key, value = self._with_added(keys_and_values(), around)
            num_added = key.shape[1] - inputs_kv.shape[1]
            if self.use_cache:
                self._cache(key, value, num_added)
            relative = None
            if position_bias is not None:
                starts = around.starts if around is not None and num_added else None
                relative = _bias(position_bias, positions, num_added, starts)
            mask = masks.with_keys_in_front(mask, key.shape[1])
            x = self._attend(query, key, value, mask, relative)
        return dense((cfg.emb_dim,), (*heads, "embed"), num_inputs=2, name="out")(x)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: Array | None,
        relative: jax.Array | None = None,
        *,
        keys: str = "bknd",
    ) -> jax.Array:
        """Returns values weighted by the float32 softmax of the masked logits plus `relative`, [B, Q, N, D].

        Args:
          query: [B, Q, N, D].
          key: [B, K, N, D], or in the order of axes that `keys` says.
          value: As `key`.
          mask: [B or 1, 1, Q or 1, K], True where attention is allowed; None allows all.
          relative: [1, N, Q, K], or [B, N, Q, K], added to the logits; None adds none.
          keys: "bndk" for keys and values that are kept while decoding: each token's products read them as they lie.
        """
        shared = layers.shared_dropout(self.config.dropout_rate, self.deterministic)

        # All queries of a head share a mask: to drop their weights is to drop keys of the values, [B, N, D, K].
        def dropout(x: jax.Array) -> jax.Array:
            # What is drawn for a key depends on how many keys there are, so it is drawn for the whole row.
            whole = jnp.pad(x, [(0, 0)] * 3 + [(0, self.trimmed)])
            return shared(whole)[..., : x.shape[-1]]

        if keys == "bknd":
            kernel = fused_attention.choose(self.config, query, key, mask, relative)
            if kernel is not None:
                value = jnp.moveaxis(dropout(jnp.moveaxis(value, 1, -1)), -1, 1)
                return fused_attention.attend(kernel, query, key, value, mask, relative)
        is_shared = relative is None or relative.shape[0] == 1
        if keys == "bknd" and is_shared and chunked_attention.pays():
            query, key, value = (
                jnp.transpose(x, axes)
                for x, axes in ((query, (0, 2, 1, 3)), (key, (0, 2, 3, 1)), (value, (0, 2, 3, 1)))
            )
            out = chunked_attention.attend(query, key, dropout(value), mask, relative)
            return jnp.swapaxes(out, 1, 2)
        logits = jnp.einsum(f"bqnd,{keys}->bnqk", query, key, preferred_element_type=jnp.float32)
        logits = logits + _sum_of_biases(mask, relative)
        weights = jax.nn.softmax(logits).astype(self.config.activation_dtype)
        weights = dropout(weights)
        # `products.py` says why.
        wide = jnp.float32 if partitioning.platform() == "cpu" else None
        read = jnp.einsum(f"bnqk,{keys}->bqnd", weights, value, preferred_element_type=wide)
        return read.astype(weights.dtype)

    def _with_added(self, own: KeysAndValues, around: Around | None) -> KeysAndValues:
        """Returns keys and values [B, K, N, D] with those in front that the method adds."""
        if self.method is None or around is None:
            return own
        window = self.config.relative_attention_max_distance
        return self.method.keys_and_values_of(Attended(self, window, around.shared), own)

    def _keeps_keys(self) -> bool:
        return self.is_mutable_collection("encoded") or self.has_variable("encoded", "key")

    def _kept(
        self, keys_and_values: Callable[[], tuple[jax.Array, ...]]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns keys and values [B, N, D, K] of the encoded input, which are computed if they are not there yet."""
        if not self.has_variable("encoded", "key"):
            for name, made in zip(("key", "value"), keys_and_values(), strict=True):
                self.put_variable("encoded", name, jnp.moveaxis(made, 1, -1))
        return self.get_variable("encoded", "key"), self.get_variable("encoded", "value")

    def _cache(
        self, key: jax.Array, value: jax.Array, num_added: int = 0
    ) -> tuple[nn.Variable, nn.Variable, nn.Variable]:
        """Returns the cached keys and values [B, N, D, T] and the scalar index, as T5X's decoders expect them.

        Args:
          key: [B, T, N, D]; where there is no cache yet, it is as long as this.
          value: As `key`.
          num_added: How many of them, in front, the cache begins with.
        """

        def start(x: jax.Array) -> jax.Array:
            kept = jnp.moveaxis(x, 1, -1)
            empty = jnp.zeros(kept.shape, x.dtype)
            return empty if not num_added else empty.at[..., :num_added].set(kept[..., :num_added])

        return (
            self.variable("cache", "cached_key", start, key),
            self.variable("cache", "cached_value", start, value),
            self.variable("cache", "cache_index", jnp.full, (), num_added, jnp.int32),
        )

    def _append_to_cache(
        self, key: jax.Array, value: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns all keys and values so far, [B, N, D, T], and the position of those appended: [], or [B]."""
        cached_key, cached_value, cache_index = self._cache(key, value)
        batch, length = key.shape[:2]
        if length != 1 or cached_key.value.shape[0] != batch:
            raise ConfigError(
                "Decoding with a cache takes one token of every row at a time",
                got=f"decoder input of shape {(batch, length)}",
                expected=f"shape {(cached_key.value.shape[0], 1)}",
                fix="feed the last token only, with the batch size that the cache was made for",
            )
        index = cache_index.value
        for cached, new in ((cached_key, key), (cached_value, value)):
            column = jnp.moveaxis(new, 1, -1).astype(cached.value.dtype)
            cached.value = cache.append(cached.value, column, index)
        cache_index.value = index + jnp.int32(1)
        return cached_key.value, cached_value.value, index


def _bias(
    position_bias: PositionBias, length: int, num_added: int, starts: Array | None
) -> jax.Array:
    """Returns the bias [1 or B, N, Q, K] of Q = `length` positions for as many keys behind `num_added` others.

    Args:
      position_bias: Gives the bias for query and key positions.
      length: Positions of the row.
      num_added: Keys in front of them.
      starts: [B, Q or 1], where the example of each position begins, whose distance to the keys in front is that of an
        example alone; None where all rows are one example from 0.
    """
    queries, keys = (np.arange(n, dtype=np.int32) for n in (length, num_added + length))
    bias = position_bias(queries + num_added, keys)
    if starts is None:
        return bias
    of_rows = jnp.moveaxis(
        jnp.take(bias[0, :, :, :num_added], queries[None] - starts, axis=1), 0, 1
    )
    behind = jnp.broadcast_to(bias[..., num_added:], (*of_rows.shape[:-1], length))
    return jnp.concatenate([of_rows, behind], axis=-1)


def _bias_at(position_bias: PositionBias | None, index: jax.Array, length: int) -> jax.Array | None:
    """Returns the bias [1, N, 1, T] of the query at position `index` for the T = `length` positions of a cache.

    With an `index` for each row it is [R, N, 1, T].
    """
    if position_bias is None:
        return None
    # Every distance once, of which each position reads its part. No position is in it, so that layers with one table
    # share it and a loop over positions computes it once.
    last = np.asarray([length - 1], dtype=np.int32)
    distances = position_bias(last, np.arange(2 * length - 1, dtype=np.int32))
    if index.ndim:
        # Rows that have ended count on, beyond what there is: what they read is not used, and must not be NaN.
        of_rows = (length - 1 - index)[:, None] + np.arange(length, dtype=np.int32)[None]
        taken = jnp.take(distances[0, :, 0], of_rows, axis=-1, mode="clip")
        return jnp.moveaxis(taken, 1, 0)[:, :, None]
    return jax.lax.dynamic_slice_in_dim(distances, length - 1 - index, length, axis=-1)


def _sum_of_biases(mask: Array | None, relative: jax.Array | None) -> jax.Array:
    """Returns what to add to the logits, float32; 0 for nothing."""
    bias = jnp.float32(0) if mask is None else masks.mask_bias(mask)
    return bias if relative is None else bias + relative.astype(jnp.float32)
