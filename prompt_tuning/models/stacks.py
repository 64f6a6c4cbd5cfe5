"""Encoder and decoder: one layer of each, and the stacks, as a Python loop or as one scanned layer."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jaxtyping import Bool, Float, Int

from prompt_tuning.models import attention, layers, masks
from prompt_tuning.models.config import REMAT_POLICIES, Architecture, T5Config
from prompt_tuning.models.methods.method import Around, Joining, Layer, Method, Stack, Tokens
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.prompt import PromptPrefix, join_prompt
from prompt_tuning.types import Array


def _position_bias(
    config: T5Config, table: Array | None, *, bidirectional: bool
) -> attention.PositionBias:
    """Returns the bias from the stack's table, or from the layer's own where the stack has none."""
    if table is None:
        table = attention.RelativePositionTable(config, name="relpos_bias")()
    return functools.partial(
        attention.relative_position_bias, table, config=config, bidirectional=bidirectional
    )


def _add(
    config: T5Config,
    dropout: nn.Dropout,
    norm: str,
    block: Callable[[jax.Array], jax.Array],
    x: jax.Array,
) -> jax.Array:
    """Returns `x` plus what a block makes of it, behind the norm of this name; inside a layer's compact method."""
    y = block(layers.RMSNorm(config, name=norm)(x))
    return layers.constrain(x + dropout(y), layers.RESIDUAL)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, each behind a norm and added to its input.

    Attributes:
      config: The architecture.
      deterministic: Whether dropout is off.
      trimmed: Positions that were cut off the row as padding.
      method: What acts inside the layer; None for nothing.
      prompt_length: Rows of the prompt that is in the input.
    """

    config: T5Config
    deterministic: bool
    trimmed: int = 0
    method: Method | None = None
    prompt_length: int = 0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B S H"],
        mask: Bool[Array, "B 1 #S S"],
        around: Around | None,
        table: Float[Array, "N buckets"] | None,
    ) -> tuple[Float[jax.Array, "B S H"], None]:
        """Returns the layer's output and None, the per-layer output that `scan` asks for."""
        cfg = self.config
        # One module for all places: Flax tells the draws of a module apart by the order of its calls.
        dropout = layers.shared_dropout(cfg.dropout_rate, self.deterministic)
        add = functools.partial(_add, cfg, dropout)
        bias = _position_bias(cfg, table, bidirectional=True)
        attend = attention.Attention(
            cfg, self.deterministic, trimmed=self.trimmed, method=self.method, name="attention"
        )
        mlp = layers.Mlp(cfg, self.deterministic, self.method, name="mlp")
        x = layers.constrain(jnp.asarray(x), layers.RESIDUAL)
        if self.method is not None and around is not None:
            layer = Layer(self, self.prompt_length, around.prompt_positions)
            x = self.method.layer_input_of(layer, x)
        x = add("pre_attention_layer_norm", lambda y: attend(y, y, mask, bias, around), x)
        return add("pre_mlp_layer_norm", mlp, x), None


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder and feed-forward block, each behind a norm and added.

    Attributes:
      config: The architecture.
      deterministic: Whether dropout is off.
      decode: Whether self-attention uses the key/value cache, and attention to the encoder the kept keys and values.
      trimmed: Positions that were cut off the inputs and the targets as padding.
      method: What acts inside the layer; None for nothing.
    """

    config: T5Config
    deterministic: bool
    decode: bool = False
    trimmed: tuple[int, int] = (0, 0)
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R T H"],
        encoded: Float[Array, "B S H"],
        self_mask: Bool[Array, "B 1 T T"] | None,
        cross_mask: Bool[Array, "B 1 #T S"],
        around: Around | None,
        table: Float[Array, "N buckets"] | None,
    ) -> tuple[Float[jax.Array, "R T H"], None]:
        """Returns the layer's output and None, the per-layer output that `scan` asks for."""
        cfg = self.config
        dropout = layers.shared_dropout(cfg.dropout_rate, self.deterministic)
        add = functools.partial(_add, cfg, dropout)
        bias = _position_bias(cfg, table, bidirectional=False)
        attend = functools.partial(attention.Attention, cfg, self.deterministic, method=self.method)
        inputs, targets = self.trimmed
        to_self = attend(use_cache=self.decode, trimmed=targets, name="self_attention")
        to_encoded = attend(keep_keys=self.decode, trimmed=inputs, name="encoder_decoder_attention")
        mlp = layers.Mlp(cfg, self.deterministic, self.method, name="mlp")
        x = layers.constrain(jnp.asarray(x), layers.RESIDUAL)
        x = add(
            "pre_self_attention_layer_norm", lambda y: to_self(y, y, self_mask, bias, around), x
        )
        # No position bias here: encoder and decoder positions have no common origin.
        x = add(
            "pre_cross_attention_layer_norm",
            lambda y: to_encoded(y, encoded, cross_mask, around=around),
            x,
        )
        return add("pre_mlp_layer_norm", mlp, x), None


def _table_of_stack(config: T5Config) -> jax.Array | None:
    """The table that the layers of a stack share, a parameter of the calling module; None where each has its own."""
    if config.scan_layers or config.relative_bias_per_layer:
        return None
    return attention.RelativePositionTable(config, name="relpos_bias")()


def run_layers(
    layer: type[nn.Module],
    stack: nn.Module,
    *,
    scan_name: str,
    num_layers: int,
    x: jax.Array,
    broadcast: tuple[Any, ...],
    by_layer: Mapping[str, np.ndarray] = MappingProxyType({}),
    **attributes: Any,
) -> jax.Array:
    """Returns `x` after `num_layers` of `layer`; must run inside the compact method of `stack`.

    Args:
      layer: The class of a layer.
      stack: The module that owns the layers.
      scan_name: Name of the scanned layer. Unscanned ones are `layers_{i}`.
      num_layers: How many.
      x: The first layer's input.
      broadcast: The last arguments, the same for each layer.
      by_layer: Name -> [num_layers] what differs between layers: attributes of each where they are apart; where they
        are scanned arguments, behind the first, which are None else.
      **attributes: Attributes of a layer; `config` decides on scan and rematerialization.
    """
    cfg: Architecture = attributes["config"]
    if cfg.remat_policy != "none":
        # Inside scan, XLA cannot merge the recomputation with the first computation: no barrier is needed.
        layer = nn.remat(
            layer, policy=REMAT_POLICIES[cfg.remat_policy], prevent_cse=not cfg.scan_layers
        )
    if not cfg.scan_layers:
        for i in range(num_layers):
            own = {name: values[i].item() for name, values in by_layer.items()}
            of_layer = layer(**attributes, **own, name=f"layers_{i}")
            x, _ = of_layer(x, *(None for _ in own), *broadcast)
        return x
    # Parameters are stacked on their second axis, where T5X puts them; each layer has its own table.
    axis: Any = 1
    in_axes: Any = (0,) * len(by_layer) + (nn.broadcast,) * len(broadcast)
    if not stack.is_mutable_collection("params"):
        axis = nn_partitioning.ScanIn(axis)
    scanned = nn_partitioning.scan_with_axes(
        layer,
        variable_axes={"params": axis, "cache": 0, "encoded": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=num_layers,
        axis_name="layers",
    )
    x, _ = scanned(**attributes, name=scan_name)(x, *by_layer.values(), *broadcast)
    return x


class Encoder(nn.Module):
    """The encoder stack. The prompt, if there is one, is put in front of the embedded tokens here.

    Attributes:
      config: The architecture.
      prompt: Length and initializer of the prompt parameter; None declares none.
      method: What acts inside the stack; None for nothing.
    """

    config: T5Config
    prompt: PromptConfig | None = None
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "B L H"],
        tokens: Int[Array, "B L"],
        *,
        segment_ids: Int[Array, "B L"] | None = None,
        prompt: Float[Array, "*B P H"] | None = None,
        prompt_mask: Array | None = None,
        prompt_positions: Int[Array, "B L"] | None = None,
        task: Int[Array, " B"] | None = None,
        deterministic: bool,
        trimmed: int = 0,
    ) -> Float[jax.Array, "B S H"]:
        """Returns the encoded prompt and tokens, S = P + L; S = L with `prompt_positions`.

        Args:
          embedded: [B, L, H] embedded tokens.
          tokens: [B, L] ids, padding among them, which tells which positions are real.
          segment_ids: [B, L] packed example of each token, or None.
          prompt: [P, H] or [B, P, H], used instead of the parameter.
          prompt_mask: [B, P], nonzero where a prompt position is real; None if all are.
          prompt_positions: [B, L] row of the prompt at each position, from 1, where packed examples have prompts of
            their own between the tokens; 0 elsewhere.
          task: [B] which of the method's tasks each row is of; None where it tells none apart.
          deterministic: Whether dropout is off.
          trimmed: Positions that were cut off the row as padding.
        """
        cfg = self.config
        dropout = layers.shared_dropout(cfg.dropout_rate, deterministic)
        x = jnp.asarray(embedded)
        if prompt is None and self.prompt is not None:
            prompt = PromptPrefix(self.prompt, x.shape[-1], name="prompt")()
        if self.method is not None:
            x = self.method.embedded_of(Tokens(self, segment_ids, prompt_positions), x)
            is_token = jnp.asarray(tokens) != cfg.ids.pad
            prompt = self.method.prompt_of(Joining(self, x, is_token, task), prompt)
        if prompt is not None:
            x = join_prompt(x, prompt, prompt_positions)
        length = masks.prompt_length(x, tokens)
        is_real = masks.is_real_position(tokens, length, prompt_mask, segment_ids, pad=cfg.ids.pad)
        mask = masks.key_mask(is_real)
        if segment_ids is not None:
            mask = masks.pairwise_mask(is_real, is_real, segment_ids, segment_ids)
        around = None
        if self.method is not None:
            is_shifted = segment_ids is not None or prompt_mask is not None
            starts = masks.first_key(mask) if is_shifted else None
            around = Around(
                self.method.shared_of(Stack(self, cfg.emb_dim)), starts, prompt_positions
            )
            if (sees := self.method.prompt_sees) is not None:
                mask = masks.with_prompt_visibility(mask, length, sees)
        # The prompt is dropped out with the tokens.
        x = self.run(
            dropout(x),
            mask,
            around,
            deterministic=deterministic,
            trimmed=trimmed,
            prompt_length=0 if prompt is None else prompt.shape[-2],
        )
        return dropout(x)

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
        """Returns what the layers and the last norm make of their input; other families have other layers."""
        cfg = self.config
        x = run_layers(
            EncoderLayer,
            self,
            scan_name="encoder",
            num_layers=cfg.num_encoder_layers,
            x=x,
            broadcast=(mask, around, _table_of_stack(cfg)),
            config=cfg,
            deterministic=deterministic,
            trimmed=trimmed,
            method=self.method,
            prompt_length=prompt_length,
        )
        return layers.RMSNorm(cfg, name="encoder_norm")(x)


class Decoder(nn.Module):
    """The decoder stack with the untied output head, where the model has one.

    Attributes:
      config: The architecture.
      method: What acts inside the stack; None for nothing.
    """

    config: T5Config
    method: Method | None = None

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "R T H"],
        encoded: Float[Array, "B S H"],
        self_mask: Bool[Array, "B 1 T T"] | None,
        cross_mask: Bool[Array, "B 1 #T S"],
        *,
        deterministic: bool,
        decode: bool,
        packed: bool = False,
        trimmed: tuple[int, int] = (0, 0),
    ) -> Float[jax.Array, "R T _"]:
        """Returns float32 logits [B, T, V], or hidden states [B, T, H] if the head is the embedding table.

        `packed` says that rows have several targets, which `self_mask` keeps apart.
        """
        cfg = self.config
        around = None
        if self.method is not None:
            starts = masks.first_key(self_mask) if packed and self_mask is not None else None
            around = Around(self.method.shared_of(Stack(self, cfg.emb_dim)), starts)
        dropout = layers.shared_dropout(cfg.dropout_rate, deterministic)
        y = run_layers(
            DecoderLayer,
            self,
            scan_name="decoder",
            num_layers=cfg.num_decoder_layers,
            x=dropout(jnp.asarray(embedded)),
            broadcast=(encoded, self_mask, cross_mask, around, _table_of_stack(cfg)),
            config=cfg,
            deterministic=deterministic,
            decode=decode,
            trimmed=trimmed,
            method=self.method,
        )
        y = dropout(layers.RMSNorm(cfg, name="decoder_norm")(y))
        if cfg.logits_via_embedding:
            return y
        # bfloat16 logits destabilize the loss.
        head = layers.Dense(
            cfg,
            (cfg.vocab_size,),
            ("embed", "vocab"),
            dtype=jnp.float32,
            narrow=decode,
            name="logits_dense",
        )
        return head(y)
