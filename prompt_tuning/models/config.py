"""The architecture of a T5 model as one frozen value, and what architectures of every family have."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from prompt_tuning.errors import ConfigError, check_choice, check_count, check_number
from prompt_tuning.types import SpecialIds

# What `mlp_activations` may name. `gelu` is the tanh approximation that T5 1.1 was trained with.
ACTIVATIONS = {
    "gelu": lambda x: nn.gelu(x, approximate=True),
    "linear": lambda x: x,
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
}

# What the backward pass may keep instead of recomputing, under T5X's names.
REMAT_POLICIES = {
    "none": None,
    # Keeps the results of matrix products with weights; recomputes attention logits and elementwise work.
    "minimal": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    # Keeps a layer's input only.
    "full": jax.checkpoint_policies.nothing_saveable,
}

# Which kernel attention may be.
ATTENTIONS = ("auto", "plain", "cudnn")


class Architecture:
    """What the configurations of all families have in common; each is a frozen dataclass with these fields.

    Attributes:
      vocab_size: Rows of the embedding table (V).
      emb_dim: Width of the encoder (H), which is that of a prompt.
      num_encoder_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
      dropout_rate: Rate of every dropout.
      dtype: Name of the dtype of activations.
      param_dtype: Name of the dtype in which parameters are created.
      scan_layers: Whether a stack is one scanned layer with stacked parameters.
      remat_policy: What the backward pass recomputes.
      special_ids: None for those of T5.
    """

    # What tells type checkers of a dataclass.
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    vocab_size: int
    emb_dim: int
    num_encoder_layers: int
    num_decoder_layers: int
    dropout_rate: float
    dtype: Any
    param_dtype: Any
    scan_layers: bool
    remat_policy: str
    special_ids: SpecialIds | None

    @property
    def activation_dtype(self) -> Any:
        """The dtype of activations as a numpy dtype."""
        return jnp.dtype(self.dtype)

    @property
    def parameter_dtype(self) -> Any:
        """The dtype of new parameters as a numpy dtype."""
        return jnp.dtype(self.param_dtype)

    @property
    def ids(self) -> SpecialIds:
        """The token ids that the model gives a meaning to."""
        return self.special_ids or SpecialIds()

    @property
    def embedding_scale(self) -> float:
        """What embedded tokens are, as a multiple of the embedding table's rows."""
        return 1.0

    def _check(self) -> None:
        """Brings the values that all families have to their one form and checks them."""
        family = type(self).__name__
        for name in ("dtype", "param_dtype"):
            object.__setattr__(self, name, _dtype_name(f"{family}.{name}", getattr(self, name)))
        # As JSON says it.
        if isinstance(self.special_ids, Mapping):
            object.__setattr__(self, "special_ids", SpecialIds(**self.special_ids))
        # None is T5X's other spelling of "none".
        object.__setattr__(self, "remat_policy", self.remat_policy or "none")
        for field in dataclasses.fields(self):
            if field.type in (int, "int"):
                check_count(f"{family}.{field.name}", getattr(self, field.name), "units")
        check_choice(f"{family}.remat_policy", self.remat_policy, REMAT_POLICIES)
        check_number(f"{family}.dropout_rate", self.dropout_rate, "[0, 1)")

    def apart(self) -> "Architecture":
        """Returns the same architecture with its layers apart, each with what its stacked form has."""
        return dataclasses.replace(self, scan_layers=False)

    def decodes_apart(self, max_decode_length: int) -> bool:
        """Returns whether layers keep different amounts of what was decoded, which no stack can hold.

        Args:
          max_decode_length: Tokens to decode at most.
        """
        del max_decode_length
        return False


class StackArchitecture(Architecture):
    """What the modules of a stack take: that of one stack, or of a model whose stacks are alike.

    Attributes:
      mlp_dim: Hidden width of the feed-forward block (F).
      mlp_activations: One activation per input projection, multiplied.
    """

    mlp_dim: int
    mlp_activations: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class T5Config(StackArchitecture):
    """Sizes and numerics of a T5 model.

    Attributes:
      vocab_size: Rows of the embedding table (V).
      emb_dim: Width of the residual stream (H).
      num_heads: Attention heads (N).
      num_encoder_layers: Layers of the encoder.
      num_decoder_layers: Layers of the decoder.
      head_dim: Width of one head (D); `num_heads * head_dim` need not be `emb_dim`.
      mlp_dim: Hidden width of the feed-forward block (F).
      mlp_activations: One activation per input projection, multiplied: ("gelu", "linear") is T5 1.1's
        gated GELU, ("relu",) is T5 1.0.
      dropout_rate: Rate of every dropout, in [0, 1).
      dtype: Dtype of activations. Norm statistics, softmax and logits are float32 whatever it is.
      param_dtype: Dtype in which parameters are created; parameters of another dtype may be passed in,
        they are cast to `dtype` where they are used. The prompt is always created in float32.
      logits_via_embedding: Whether the output head is the embedding table, rescaled by
        1/sqrt(emb_dim) (T5 1.0), instead of a matrix of its own (T5 1.1).
      relative_attention_num_buckets: Buckets of relative distance.
      relative_attention_max_distance: Distance from which on all share the last bucket. Unit: tokens.
      relative_bias_per_layer: Whether each layer has a relative position table of its own (UMT5) instead of one for
        each stack. A scanned stack always has one per layer, as in T5X; where layers share one, they repeat it.
      scan_layers: Whether a stack is one scanned layer with stacked parameters (compiles in constant
        time and memory) instead of a Python loop. Parameter names follow T5X's layout for each.
      remat_policy: What the backward pass recomputes: "none", "minimal" or "full".
      attention: "auto" computes attention as one kernel on TPUs where it pays (`fused_attention.choose`), "cudnn" on
        NVIDIA GPUs too, "plain" nowhere.
      special_ids: Ids of padding, end and start; None for 0, 1 and 0, as all T5 have them but MADLAD-400.

    Raises:
      ConfigError: If a size is not positive, a rate is out of range or a name is unknown.

    Source: T5X `examples/t5/network.py` and `examples/scalable_t5/network.py`, `T5Config`.
      Differs: one class for both, activations in bfloat16 by default.
    """

    vocab_size: int
    emb_dim: int
    num_heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    head_dim: int
    mlp_dim: int
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    dropout_rate: float = 0.1
    dtype: Any = "bfloat16"
    param_dtype: Any = "float32"
    logits_via_embedding: bool = False
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    relative_bias_per_layer: bool = False
    scan_layers: bool = False
    remat_policy: str = "none"
    attention: str = "auto"
    special_ids: SpecialIds | None = None

    def __post_init__(self) -> None:
        """Brings values to their one form and checks them."""
        # gin gives lists; the config has to be hashable.
        object.__setattr__(self, "mlp_activations", tuple(self.mlp_activations))
        self._check()
        for activation in self.mlp_activations:
            check_choice("T5Config.mlp_activations", activation, ACTIVATIONS)
        check_choice("T5Config.attention", self.attention, ATTENTIONS)
        half = self.relative_attention_num_buckets // 2
        # With fewer buckets, or no distances to spread over the logarithmic ones, the bucket formula divides by zero.
        if half < 2 or self.relative_attention_max_distance <= half:
            raise ConfigError(
                "T5Config's relative attention has no logarithmic buckets",
                got=f"{self.relative_attention_num_buckets} buckets up to distance "
                f"{self.relative_attention_max_distance}",
                expected="at least 4 buckets and a maximal distance above half their number",
                fix="use 32 buckets and distance 128, as every T5 checkpoint does",
            )
        if not self.mlp_activations:
            raise ConfigError(
                "T5Config.mlp_activations is empty",
                got=self.mlp_activations,
                expected="at least one activation",
                fix='use ("gelu", "linear") for T5 1.1 or ("relu",) for T5 1.0',
            )

    def apart(self) -> "T5Config":
        """Returns the architecture unscanned; see `Architecture`."""
        return dataclasses.replace(self, scan_layers=False, relative_bias_per_layer=True)


def _dtype_name(field: str, dtype: Any) -> str:
    """Returns the name of a floating dtype given as a name, a dtype or a scalar type."""
    try:
        resolved = jnp.dtype(dtype)
        if jnp.issubdtype(resolved, jnp.floating):
            return resolved.name
    except TypeError:
        pass
    raise ConfigError(
        f"{field} is not a floating dtype",
        got=dtype,
        expected='"float32" or "bfloat16"',
        fix=f'set {field.rpartition(".")[2]} = "bfloat16"',
        name=str(dtype),
        candidates=("float32", "bfloat16", "float16"),
    )
