"""Multi-head attention with T5's relative position bias and a key/value cache for decoding."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from prompt_tuning.errors import ConfigError
from prompt_tuning.models import fused_attention, layers, masks
from prompt_tuning.models.config import T5Config
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
    """

    config: T5Config
    deterministic: bool
    use_cache: bool = False

    @nn.compact
    def __call__(
        self,
        inputs_q: Float[Array, "B Q H"],
        inputs_kv: Float[Array, "B K H"],
        mask: Bool[Array, "#B 1 Q K"] | None = None,
        position_bias: PositionBias | None = None,
    ) -> Float[jax.Array, "B Q H"]:
        """Returns what each query reads.

        With `use_cache`, the first call creates an empty cache as long as its input and attends without it;
        every later call takes one position, appends it, and attends to all positions so far.

        Args:
          inputs_q: [B, Q, H] queries' inputs.
          inputs_kv: [B, K, H] keys' and values' inputs.
          mask: [B, 1, Q, K], True where attention is allowed; None allows all.
          position_bias: Gives the bias for query and key positions; None adds none.
        """
        cfg = self.config
        dense = functools.partial(
            layers.Dense,
            cfg,
            distribution="normal",
            join_axes=not cfg.scan_layers,
        )
        heads = ("heads", "kv") if cfg.scan_layers else ("joined_kv",)
        project = functools.partial(dense, (cfg.num_heads, cfg.head_dim), ("embed", *heads))
        query, key, value = (
            layers.constrain(projection(x), ("batch", "length", "heads", "kv"))
            for projection, x in (
                # The division by sqrt(D) that this attention leaves out is in the query's initial values.
                (project(name="query", variance=1.0 / cfg.head_dim), inputs_q),
                (project(name="key"), inputs_kv),
                (project(name="value"), inputs_kv),
            )
        )
        query_positions: Array = np.arange(query.shape[1], dtype=np.int32)
        if self.use_cache:
            key, value, query_positions, mask = self._append_to_cache(query, key, value, mask)
        relative = None
        if position_bias is not None:
            key_positions = np.arange(key.shape[1], dtype=np.int32)
            relative = position_bias(query_positions, key_positions)
        x = self._attend(query, key, value, mask, relative)
        return dense((cfg.emb_dim,), (*heads, "embed"), num_inputs=2, name="out")(x)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        mask: Array | None,
        relative: jax.Array | None,
    ) -> jax.Array:
        """Returns values weighted by the float32 softmax of the masked logits plus `relative`, [B, Q, N, D]."""
        dropout = layers.shared_dropout(self.config.dropout_rate, self.deterministic)
        kernel = fused_attention.choose(self.config, query, key, mask, relative)
        if kernel is not None:
            # One draw for all queries of a head: dropping its weight of a key is dropping the key's value.
            batch, length, heads, _ = value.shape
            kept = dropout(jnp.ones((batch, heads, 1, length), jnp.float32))
            kept = kept.transpose(0, 3, 1, 2)
            value = (value.astype(jnp.float32) * kept).astype(value.dtype)
            return fused_attention.attend(kernel, query, key, value, mask, relative)
        bias = None if mask is None else masks.mask_bias(mask)
        if relative is not None:
            relative = relative.astype(jnp.float32)
            bias = relative if bias is None else bias + relative
        logits = jnp.einsum("bqnd,bknd->bnqk", query, key, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + bias
        weights = dropout(jax.nn.softmax(logits).astype(self.config.activation_dtype))
        return jnp.einsum("bnqk,bknd->bqnd", weights, value)

    def _append_to_cache(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: Array | None
    ) -> tuple[jax.Array, jax.Array, Array, Array | None]:
        """Returns all keys and values so far, the query's position and the mask over the cache.

        The cache holds [B, N, D, T] and a scalar index, as T5X's decoders expect.
        """
        has_cache = self.has_variable("cache", "cached_key")
        batch, length, heads, depth = key.shape
        shape = (batch, heads, depth, length)
        cached_key = self.variable("cache", "cached_key", jnp.zeros, shape, key.dtype)
        cached_value = self.variable("cache", "cached_value", jnp.zeros, shape, value.dtype)
        cache_index = self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32))
        if not has_cache:
            return key, value, np.arange(length, dtype=np.int32), mask
        if query.shape[1] != 1 or cached_key.value.shape[0] != batch:
            raise ConfigError(
                "Decoding with a cache takes one token of every row at a time",
                got=f"decoder input of shape {(batch, query.shape[1])}",
                expected=f"shape {(cached_key.value.shape[0], 1)}",
                fix="feed the last token only, with the batch size that the cache was made for",
            )
        index, size = cache_index.value, cached_key.value.shape[-1]
        for cached, new in ((cached_key, key), (cached_value, value)):
            column = jnp.moveaxis(new, 1, -1).astype(cached.value.dtype)
            cached.value = jax.lax.dynamic_update_slice_in_dim(cached.value, column, index, axis=-1)
        cache_index.value = index + jnp.int32(1)
        is_past = (jnp.arange(size, dtype=jnp.int32) <= index)[None, None, None, :]
        mask = is_past if mask is None else jnp.logical_and(mask, is_past)
        key, value = (jnp.moveaxis(c.value, -1, 1) for c in (cached_key, cached_value))
        return key, value, index[None], mask
