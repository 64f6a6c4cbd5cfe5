"""The architecture of a T5Gemma model, of either generation, as frozen values: one for each stack, one for both."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_tuning.errors import ConfigError, check_choice, check_count, check_number
from prompt_tuning.models.config import Architecture, StackArchitecture
from prompt_tuning.types import SpecialIds

SLIDING, FULL = "sliding", "full"
LAYER_TYPES = (SLIDING, FULL)


@dataclasses.dataclass(frozen=True)
class StackSizes:
    """Sizes of the encoder or the decoder.

    Attributes:
      num_layers: Layers.
      emb_dim: Width of the residual stream (H).
      num_heads: Query heads (N).
      num_kv_heads: Heads of keys and values (K), each of which N / K query heads share.
      head_dim: Width of one head (D).
      mlp_dim: Hidden width of the feed-forward block (F).
      query_scalar: Logits are divided by its square root; `query_pre_attn_scalar` in config.json.
      window: Where attention slides, how many positions a query reads up to itself, itself included: i - j < window.
      window_ahead: There, how many behind itself it reads; 0 in a decoder.
      layer_types: "sliding" or "full" for each layer; a shorter list is repeated.
      attention_softcap: Attention's logits are squeezed into (-softcap, softcap) by tanh; None leaves them.
      rope_theta: Base of the rotary embedding in full layers.
      rope_local_theta: The same in sliding layers.
      rope_factor: By how much positions are divided in full layers ("linear" scaling).

    Raises:
      ConfigError: If a size is not positive, or heads do not divide.
    """

    num_layers: int
    emb_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    query_scalar: float
    window: int
    window_ahead: int = 0
    layer_types: tuple[str, ...] = (SLIDING, FULL)
    attention_softcap: float | None = None
    rope_theta: float = 10_000.0
    rope_local_theta: float = 10_000.0
    rope_factor: float = 1.0

    def __post_init__(self) -> None:
        """Makes the lists hashable and checks the values."""
        for field in dataclasses.fields(self):
            if field.type in (int, "int"):
                least = 0 if field.name == "window_ahead" else 1
                value = getattr(self, field.name)
                check_count(f"T5GemmaStack.{field.name}", value, "units", at_least=least)
        for name in ("query_scalar", "rope_theta", "rope_local_theta", "rope_factor"):
            check_number(f"T5GemmaStack.{name}", getattr(self, name), "(0, inf)")
        name, cap = "T5GemmaStack.attention_softcap", self.attention_softcap
        check_number(name, cap, "(0, inf)", none_means="no cap")
        for name in self.layer_types:
            check_choice("T5GemmaStack.layer_types", name, LAYER_TYPES)
        if not self.layer_types or self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ConfigError(
                "T5GemmaStack's heads or layer types cannot be",
                got=f"{self.num_heads} query heads over {self.num_kv_heads} of keys, width {self.head_dim},"
                f" layer_types = {self.layer_types}",
                expected="query heads that divide over those of keys, an even width, and at least one layer type",
                fix="use the sizes of the checkpoint's config.json",
            )
        # In one form, so that equal settings are the same value.
        repeated = tuple(itertools.islice(itertools.cycle(self.layer_types), self.num_layers))
        object.__setattr__(self, "layer_types", repeated)

    @property
    def is_sliding(self) -> np.ndarray:
        """Of each layer, whether its attention slides; bool."""
        return np.asarray([name == SLIDING for name in self.layer_types])


@dataclasses.dataclass(frozen=True)
class StackConfig(StackSizes, StackArchitecture):
    """Sizes of one stack with the numerics of the whole, as its modules take them; `T5GemmaConfig.stack` makes it.

    Attributes:
      merges_attention: See `T5GemmaConfig`.
    """

    vocab_size: int = 0
    dropout_rate: float = 0.0
    dtype: Any = "bfloat16"
    param_dtype: Any = "float32"
    scan_layers: bool = False
    remat_policy: str = "none"
    special_ids: SpecialIds | None = None
    merges_attention: bool = False

    @property
    def mlp_activations(self) -> tuple[str, ...]:
        """The gated block of `layers.Mlp`: GELU's tanh approximation of the first projection, times the second."""
        return ("gelu", "linear")

    @property
    def num_encoder_layers(self) -> int:
        """Layers of this stack, whichever it is."""
        return self.num_layers

    @property
    def num_decoder_layers(self) -> int:
        """Layers of this stack, whichever it is."""
        return self.num_layers


@dataclasses.dataclass(frozen=True)
class T5GemmaConfig(Architecture):
    """Sizes and numerics of a T5Gemma or T5Gemma 2 (text only).

    Attributes:
      vocab_size: Rows of each embedding table (V).
      encoder: Sizes of the encoder.
      decoder: Sizes of the decoder.
      merges_attention: T5Gemma 2: one embedding table for encoder and decoder; the decoder's self-attention reads the
        encoded input too, with the same weights and under one softmax; queries and keys are normed. Else, T5Gemma 1:
        a table for each, and attention to the encoded input apart, behind norms of its own.
      logits_softcap: The output's logits are squeezed into (-softcap, softcap) by tanh; None leaves them.
      eoi_token: Id whose embedding is a parameter of its own, unscaled (T5Gemma 2's end of image); None for no such.
      dropout_rate: Rate of every dropout, in [0, 1).
      dtype: Dtype of activations. Norms, rotations, softmax and logits are float32 whatever it is.
      param_dtype: Dtype in which parameters are created; see `T5Config`.
      scan_layers: Whether a stack is one scanned layer with stacked parameters.
      remat_policy: What the backward pass recomputes: "none", "minimal" or "full".
      special_ids: Ids of padding, end and start; None for Gemma's 0, 1 and 2.

    Raises:
      ConfigError: If a size is not positive, or the stacks of a model with one table differ in width.

    Source: transformers 5, `T5GemmaConfig` and `T5Gemma2Config`; google-deepmind/gemma, `research/t5gemma`. Differs: a
      window is given by what it reaches, so that no family needs a rule of its own.
    """

    vocab_size: int
    encoder: StackSizes
    decoder: StackSizes
    merges_attention: bool = False
    logits_softcap: float | None = None
    eoi_token: int | None = None
    dropout_rate: float = 0.0
    dtype: Any = "bfloat16"
    param_dtype: Any = "float32"
    scan_layers: bool = False
    remat_policy: str = "none"
    special_ids: SpecialIds | None = None

    def __post_init__(self) -> None:
        """Brings values to their one form and checks them."""
        self._check()
        name, cap = "T5GemmaConfig.logits_softcap", self.logits_softcap
        check_number(name, cap, "(0, inf)", none_means="no cap")
        for name in ("encoder", "decoder"):
            # As JSON says it.
            if isinstance(sizes := getattr(self, name), Mapping):
                object.__setattr__(self, name, StackSizes(**sizes))
        if self.merges_attention and self.encoder.emb_dim != self.decoder.emb_dim:
            raise ConfigError(
                "One embedding table needs encoder and decoder of one width",
                got=f"{self.encoder.emb_dim} and {self.decoder.emb_dim}",
                expected="the same emb_dim",
                fix="bind the same emb_dim in both network.T5GemmaStack, or merges_attention = False",
            )

    @property
    def emb_dim(self) -> int:
        """Width of the encoder, which is that of a prompt."""
        return self.encoder.emb_dim

    @property
    def num_encoder_layers(self) -> int:
        """Layers of the encoder."""
        return self.encoder.num_layers

    @property
    def num_decoder_layers(self) -> int:
        """Layers of the decoder."""
        return self.decoder.num_layers

    @property
    def ids(self) -> SpecialIds:
        """The token ids that the model gives a meaning to."""
        return self.special_ids or SpecialIds(start=2)

    @property
    def embedding_scale(self) -> float:
        """Embedded tokens are rows of the table times the square root of their width."""
        return self.emb_dim**0.5

    def stack(self, name: str) -> StackConfig:
        """Returns what the modules of one stack take.

        Args:
          name: "encoder" or "decoder".
        """
        sizes: StackSizes = getattr(self, name)
        alike = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(StackConfig)
            if hasattr(self, f.name)
        }
        own = {f.name: getattr(sizes, f.name) for f in dataclasses.fields(StackSizes)}
        return StackConfig(**{**alike, **own})

    def decodes_apart(self, max_decode_length: int) -> bool:
        """Returns whether sliding layers keep less than full ones; see `Architecture`."""
        return bool(self.decoder.is_sliding.any()) and max_decode_length > self.decoder.window
