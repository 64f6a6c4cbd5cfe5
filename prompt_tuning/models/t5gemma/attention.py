"""T5Gemma's attention: grouped queries, rotations, soft caps, windows, and caches no longer than a window.

Keys and values have fewer heads (K) than queries (N = K * G). One module serves every place: what it reads of its own
stack (`OwnKeys`), of the encoded input, or of both under one softmax (T5Gemma 2's merged attention).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from prompt_tuning import partitioning
from prompt_tuning.decoding import cache
from prompt_tuning.errors import ConfigError
from prompt_tuning.models import layers, masks
from prompt_tuning.models.methods.method import Method
from prompt_tuning.models.t5gemma import rotary
from prompt_tuning.models.t5gemma.config import StackConfig
from prompt_tuning.models.t5gemma.norm import RMSNorm
from prompt_tuning.types import Array

# Whether a layer's attention slides: known where layers are apart, traced where they are one scanned layer.
Slides = bool | Array


class Keys(NamedTuple):
    """What queries read: keys and values [B, K, D, S], positions last as while decoding, and what they may read."""

    key: jax.Array
    value: jax.Array
    mask: Array | None  # [#B, 1, #Q, S], True where attention is allowed; None allows all.


def choose(slides: Slides, sliding: Any, full: Any) -> Any:
    """Returns what sliding layers take, or what full ones take, for a layer of either kind."""
    if isinstance(slides, bool):
        return sliding if slides else full
    return jnp.where(slides, sliding, full)


def own_mask(
    sizes: StackConfig, mask: Bool[Array, "#B 1 #S S"] | None, slides: Slides
) -> Bool[Array, "#B 1 #S S"] | None:
    """Returns the mask of a stack's attention to itself, with the window where the layer slides."""
    if mask is None:
        return None
    length = mask.shape[-1]
    if length <= min(sizes.window, sizes.window_ahead + 1):
        return mask
    position = np.arange(length, dtype=np.int32)
    behind = position[:, None] - position[None, :]
    window = (behind < sizes.window) & (behind >= -sizes.window_ahead)
    return choose(slides, jnp.logical_and(mask, window[None, None]), mask)


class Attention(nn.Module):
    """Attention of one layer.

    Attributes:
      config: The stack.
      deterministic: Whether dropout is off.
      use_cache: Whether the stack's own keys and values are kept in the `cache` collection (decoding).
      keep_keys: Whether those of the encoded input are kept in the `encoded` collection; see T5's `Attention`.
      method: What acts on its linear maps; None for nothing.
    """

    config: StackConfig
    deterministic: bool
    use_cache: bool = False
    keep_keys: bool = False
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R Q H"],
        slides: Slides | None,
        own_mask: Bool[Array, "#B 1 #Q Q"] | None = None,
        positions: Int[Array, "B Q"] | None = None,
        encoded: Float[Array, "B S E"] | None = None,
        encoded_mask: Bool[Array, "B 1 #Q S"] | None = None,
    ) -> Float[jax.Array, "R Q H"]:
        """Returns what each query reads.

        With `use_cache` as T5's `Attention`: the first call makes an empty cache, every later one takes one position.

        Args:
          x: [R, Q, H] queries' inputs, and inputs of the stack's own keys and values; R as in T5's `Attention`.
          slides: Whether the layer slides; None reads nothing of the stack itself, and turns nothing.
          own_mask: What may be read of the stack itself, the window included; not read from a cache.
          positions: [B, Q] of what is read of the stack itself; None for one example a row.
          encoded: The encoded input; None reads nothing of it. Not read where its keys are kept already.
          encoded_mask: What may be read of it.
        """
        cfg = self.config
        heads = ("heads", "kv") if cfg.scan_layers else ("joined_kv",)
        dense = functools.partial(
            layers.Dense, cfg, join_axes=not cfg.scan_layers, method=self.method
        )
        split = functools.partial(layers.constrain, axes=("batch", "length", "heads", "kv"))
        map_of = lambda name, count: dense(  # noqa: E731
            (count, cfg.head_dim), ("embed", *heads), name=name
        )
        query_map = map_of("query", cfg.num_heads)
        key_map, value_map = (map_of(name, cfg.num_kv_heads) for name in ("key", "value"))
        normed = {name: lambda y: y for name in ("query", "key")}
        if cfg.merges_attention:
            normed = {n: RMSNorm(cfg, axis="kv", name=f"{n}_norm") for n in ("query", "key")}
        query = normed["query"](split(query_map(x)))
        make = lambda y: (normed["key"](split(key_map(y))), split(value_map(y)))  # noqa: E731
        read: list[Keys] = []
        if slides is not None:
            query, own = self._own(query, *make(x), slides, own_mask, positions)
            read.append(own)
        if encoded is not None:
            read.append(self._encoded(lambda: make(encoded), encoded_mask))
        out = self._read(query, read)
        return dense((cfg.emb_dim,), (*heads, "embed"), num_inputs=2, name="out")(out)

    def _own(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        slides: Slides,
        mask: Array | None,
        positions: Array | None,
    ) -> tuple[jax.Array, Keys]:
        """The queries, turned, and the keys and values of the stack that they may read."""
        frequencies = rotary.frequencies(self.config)
        frequency = choose(slides, *frequencies[::-1])
        turn = lambda x, at: rotary.rotate(x, at, frequency)  # noqa: E731
        has_cache = self.use_cache and self.has_variable("cache", "cached_key")
        if not has_cache:
            at = positions
            if at is None:
                at = np.arange(query.shape[1], dtype=np.int32)[None]
            key = turn(key, at)
            if self.use_cache:
                self._cache(key, slides)
            key, value = _positions_last(key, value)
            return turn(query, at), Keys(key, value, mask)
        index = self.get_variable("cache", "cache_index")
        at = index[:, None] if index.ndim else index[None, None]
        key, value = self._append(turn(key, at), value, slides)
        return turn(query, at), Keys(key, value, self._past(index, key.shape[-1], slides))

    def _cache(self, key: jax.Array, slides: Slides) -> tuple[nn.Variable, ...]:
        """The cached keys and values [B, K, D, C] and the scalar index.

        In a sliding layer C is no more than the window. A scanned layer may be of either kind: it has one length for
        both, and `decodes_apart` says when that will do.
        """
        batch, length, heads, depth = key.shape
        if slides is True:
            length = min(length, self.config.window)
        shape = (batch, heads, depth, length)
        return (
            self.variable("cache", "cached_key", jnp.zeros, shape, key.dtype),
            self.variable("cache", "cached_value", jnp.zeros, shape, key.dtype),
            self.variable("cache", "cache_index", lambda: jnp.zeros((), jnp.int32)),
        )

    def _append(
        self, key: jax.Array, value: jax.Array, slides: Slides
    ) -> tuple[jax.Array, jax.Array]:
        """All keys and values that are kept, [B, K, D, C]; what slides out of the window is written over."""
        cached_key, cached_value, cache_index = self._cache(key, slides)
        rows = cached_key.value.shape[0]
        if key.shape[:2] != (rows, 1):
            raise ConfigError(
                "Decoding with a cache takes one token of every row at a time",
                got=f"decoder input of shape {key.shape[:2]}",
                expected=f"shape {(rows, 1)}",
                fix="feed the last token only, with the batch size that the cache was made for",
            )
        at = cache_index.value % cached_key.value.shape[-1]
        for cached, new in ((cached_key, key), (cached_value, value)):
            column = jnp.moveaxis(new, 1, -1).astype(cached.value.dtype)
            cached.value = cache.append(cached.value, column, at)
        cache_index.value = cache_index.value + jnp.int32(1)
        return cached_key.value, cached_value.value

    def _past(self, index: jax.Array, length: int, slides: Slides) -> jax.Array:
        """Which columns of a cache the query at position `index` may read, as `cache.is_past` has them."""
        # Once a cache is full, whatever it holds is within the window.
        past = cache.is_past(index, length)
        if length > self.config.window:
            past = choose(slides, cache.is_past(index, length, self.config.window), past)
        return past

    def _encoded(self, make: Callable[[], tuple[jax.Array, jax.Array]], mask: Array | None) -> Keys:
        """Keys and values of the encoded input, which are kept while decoding."""
        is_kept = self.keep_keys and (
            self.is_mutable_collection("encoded") or self.has_variable("encoded", "key")
        )
        if not is_kept:
            key, value = _positions_last(*make())
            return Keys(key, value, mask)
        if not self.has_variable("encoded", "key"):
            for name, made in zip(("key", "value"), _positions_last(*make()), strict=True):
                self.put_variable("encoded", name, made)
        key, value = (self.get_variable("encoded", name) for name in ("key", "value"))
        return Keys(key, value, mask)

    def _read(self, query: jax.Array, read: list[Keys]) -> jax.Array:
        """Returns values weighted by one float32 softmax over all that is read, [R, Q, N, D]."""
        cfg = self.config
        rows, length = query.shape[:2]
        query = query.reshape(rows, length, cfg.num_kv_heads, -1, cfg.head_dim)
        logits = jnp.concatenate([self._logits(query, keys) for keys in read], axis=-1)
        weights = jax.nn.softmax(logits).astype(cfg.activation_dtype)
        weights = layers.shared_dropout(cfg.dropout_rate, self.deterministic)(weights)
        ends = np.cumsum([keys.key.shape[-1] for keys in read])[:-1].tolist()
        parts = zip(jnp.split(weights, ends, axis=-1), read, strict=True)
        out = functools.reduce(jnp.add, (_values(part, keys) for part, keys in parts))
        return out.astype(cfg.activation_dtype).reshape(rows, length, cfg.num_heads, cfg.head_dim)

    def _logits(self, query: jax.Array, keys: Keys) -> jax.Array:
        """The masked logits [R, K, G, Q, S], float32."""
        cfg = self.config
        shared = query.reshape(keys.key.shape[0], -1, *query.shape[1:])
        logits = jnp.einsum(
            "brqkgd,bkds->brkgqs", shared, keys.key, preferred_element_type=jnp.float32
        )
        logits = logits * jnp.float32(cfg.query_scalar**-0.5)
        if cfg.attention_softcap is not None:
            logits = soft_cap(logits, cfg.attention_softcap)
        if keys.mask is not None:
            logits = logits + masks.mask_bias(keys.mask)[:, :, None, None]
        return logits.reshape(-1, *logits.shape[2:])


def soft_cap(x: Float[jax.Array, "*shape"], cap: float) -> Float[jax.Array, "*shape"]:
    """Returns `x` squeezed into (-cap, cap); near 0 it is left as it is."""
    return jnp.tanh(x / jnp.float32(cap)) * jnp.float32(cap)


def _positions_last(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Keys and values [B, S, K, D] as [B, K, D, S]."""
    return tuple(jnp.moveaxis(x, 1, -1) for x in arrays)


def _values(weights: jax.Array, keys: Keys) -> jax.Array:
    """What weights [R, K, G, Q, S] read of values, [R, Q, K, G, D]."""
    shared = weights.reshape(keys.value.shape[0], -1, *weights.shape[1:])
    # `products.py` says why.
    wide = jnp.float32 if partitioning.platform() == "cpu" else None
    read = jnp.einsum("brkgqs,bkds->brqkgd", shared, keys.value, preferred_element_type=wide)
    return read.reshape(-1, *read.shape[2:])
