"""T5Gemma's layers and stacks: every block stands between two norms."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from prompt_tuning.models import layers, stacks
from prompt_tuning.models.methods.method import Around, Layer, Method
from prompt_tuning.models.t5gemma import attention
from prompt_tuning.models.t5gemma.config import StackConfig
from prompt_tuning.models.t5gemma.norm import RMSNorm
from prompt_tuning.types import Array


def _add(
    config: StackConfig,
    dropout: nn.Dropout,
    name: str,
    block: Callable[[jax.Array], jax.Array],
    x: jax.Array,
) -> jax.Array:
    """Returns `x` plus what a block makes of it, between the two norms of this name; inside a compact method."""
    y = block(RMSNorm(config, name=f"pre_{name}_layer_norm")(x))
    y = RMSNorm(config, name=f"post_{name}_layer_norm")(y)
    return layers.constrain(x + dropout(y), layers.RESIDUAL)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block.

    Attributes:
      config: The stack.
      deterministic: Whether dropout is off.
      method: What acts on the linear maps; None for nothing.
      prompt_length: Rows of the prompt that is in the input.
      is_sliding: Whether attention slides; None if the layer is scanned, which is told so by its call.
    """

    config: StackConfig
    deterministic: bool
    method: Method | None = None
    prompt_length: int = 0
    is_sliding: bool | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S H"],
        slides: Bool[Array, ""] | None,
        mask: Bool[Array, "B 1 #S S"],
        around: Around | None,
    ) -> tuple[Float[jax.Array, "B S H"], None]:
        """Returns the layer's output and None, the per-layer output that `scan` asks for."""
        cfg = self.config
        kind = slides if self.is_sliding is None else self.is_sliding
        assert kind is not None, "a scanned layer is told its kind"
        add = functools.partial(
            _add, cfg, layers.shared_dropout(cfg.dropout_rate, self.deterministic)
        )
        attend = attention.Attention(cfg, self.deterministic, method=self.method, name="attention")
        own = attention.own_mask(cfg, mask, kind)
        x = layers.constrain(jnp.asarray(x), layers.RESIDUAL)
        if self.method is not None and around is not None:
            layer = Layer(self, self.prompt_length, around.prompt_positions)
            x = self.method.layer_input_of(layer, x)
        x = add("attention", lambda y: attend(y, kind, own), x)
        return add("mlp", layers.Mlp(cfg, self.deterministic, self.method, name="mlp"), x), None


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder and feed-forward block; the first two are one where they are merged.

    Attributes:
      config: The stack.
      deterministic: Whether dropout is off.
      decode: Whether the key/value cache and the kept keys of the encoded input are used.
      method: What acts on the linear maps; None for nothing.
      is_sliding: See `EncoderLayer`.
    """

    config: StackConfig
    deterministic: bool
    decode: bool = False
    method: Method | None = None
    is_sliding: bool | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R T H"],
        slides: Bool[Array, ""] | None,
        encoded: Float[Array, "B S E"],
        self_mask: Bool[Array, "B 1 T T"] | None,
        cross_mask: Bool[Array, "B 1 #T S"],
        positions: Int[Array, "B T"] | None,
    ) -> tuple[Float[jax.Array, "R T H"], None]:
        """Returns the layer's output and None, the per-layer output that `scan` asks for."""
        cfg = self.config
        kind = slides if self.is_sliding is None else self.is_sliding
        assert kind is not None, "a scanned layer is told its kind"
        add = functools.partial(
            _add, cfg, layers.shared_dropout(cfg.dropout_rate, self.deterministic)
        )
        attend = functools.partial(
            attention.Attention,
            cfg,
            self.deterministic,
            use_cache=self.decode,
            keep_keys=self.decode,
            method=self.method,
        )
        own = attention.own_mask(cfg, self_mask, kind)
        to_self = attend(name="self_attention")
        x = layers.constrain(jnp.asarray(x), layers.RESIDUAL)
        if cfg.merges_attention:
            x = add(
                "self_attention", lambda y: to_self(y, kind, own, positions, encoded, cross_mask), x
            )
        else:
            to_encoded = attend(name="encoder_decoder_attention")
            x = add("self_attention", lambda y: to_self(y, kind, own), x)
            x = add(
                "cross_attention",
                lambda y: to_encoded(y, None, encoded=encoded, encoded_mask=cross_mask),
                x,
            )
        return add("mlp", layers.Mlp(cfg, self.deterministic, self.method, name="mlp"), x), None


class Encoder(stacks.Encoder):
    """The encoder stack; prompts stand in front of tokens as in T5's, from which it differs by its layers."""

    config: StackConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def run(
        self,
        x: jax.Array,
        mask: jax.Array,
        around: Around | None,
        *,
        deterministic: bool,
        trimmed: int,
        prompt_length: int,
    ) -> Float[jax.Array, "B S H"]:
        """Returns what the layers and the last norm make of their input."""
        del trimmed  # T5Gemma is trained without dropout.
        cfg = self.config
        x = stacks.run_layers(
            EncoderLayer,
            self,
            scan_name="encoder",
            num_layers=cfg.num_layers,
            x=x,
            by_layer={"is_sliding": cfg.is_sliding},
            broadcast=(mask, around),
            config=cfg,
            deterministic=deterministic,
            method=self.method,
            prompt_length=prompt_length,
        )
        return RMSNorm(cfg, name="encoder_norm")(x)


class Decoder(nn.Module):
    """The decoder stack.

    Attributes:
      config: The stack.
      method: What acts on the layers' linear maps; None for nothing.
    """

    config: StackConfig
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "R T H"],
        encoded: Float[Array, "B S E"],
        self_mask: Bool[Array, "B 1 T T"] | None,
        cross_mask: Bool[Array, "B 1 #T S"],
        *,
        deterministic: bool,
        decode: bool,
        packed: bool = False,
        trimmed: tuple[int, int] = (0, 0),
    ) -> Float[jax.Array, "R T H"]:
        """Returns the hidden states [R, T, H] that the head reads; arguments as those of T5's `Decoder`."""
        del trimmed  # See `Encoder`.
        cfg = self.config
        dropout = layers.shared_dropout(cfg.dropout_rate, deterministic)
        positions = None
        if cfg.merges_attention and packed and self_mask is not None:
            # Keys of the input are not turned, so a query's own position counts, not differences alone: that within its
            # example, of which it sees what came before.
            positions = jnp.sum(self_mask[:, 0], axis=-1, dtype=jnp.int32) - 1
        y = stacks.run_layers(
            DecoderLayer,
            self,
            scan_name="decoder",
            num_layers=cfg.num_layers,
            x=dropout(jnp.asarray(embedded)),
            by_layer={"is_sliding": cfg.is_sliding},
            broadcast=(encoded, self_mask, cross_mask, positions),
            config=cfg,
            deterministic=deterministic,
            decode=decode,
            method=self.method,
        )
        return dropout(RMSNorm(cfg, name="decoder_norm")(y))
