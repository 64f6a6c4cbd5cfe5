"""The parts of a T5 layer that are not attention: linear maps, norm, feed-forward block, embedding table."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen import partitioning as nn_partitioning
from jaxtyping import Float, Int

from prompt_tuning import partitioning
from prompt_tuning.models import fused_attention, products
from prompt_tuning.models.config import ACTIVATIONS, Architecture, StackArchitecture, T5Config
from prompt_tuning.models.methods.method import Linear, Method
from prompt_tuning.types import Array

# Logical axes of the residual stream.
RESIDUAL = ("batch", "length", "embed")

NORM_EPSILON = 1e-6


def constrain(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Asks for the sharding that the active logical axis rules give to `axes`; without rules it is `x`."""
    return nn_partitioning.with_sharding_constraint(x, axes)  # pyright: ignore[reportReturnType,reportArgumentType]


def param(
    name: str,
    init: Callable[..., jax.Array],
    shape: tuple[int, ...],
    dtype: Any,
    axes: tuple[str, ...],
) -> jax.Array:
    """Declares a parameter of the calling module, with its logical axes in the `params_axes` collection."""
    return nn_partitioning.param_with_axes(name, init, shape, dtype, axes=axes)


def shared_dropout(rate: float, deterministic: bool) -> nn.Dropout:
    """Returns the dropout of T5: one mask for all positions of a sequence (or all queries of a head)."""
    return nn.Dropout(rate=rate, broadcast_dims=(-2,), deterministic=deterministic)


class Dense(nn.Module):
    """A linear map without bias over the last axes of its input.

    A kernel that is passed in as int8 comes with the parameter `kernel_scale` (`params/int8.py`).

    Attributes:
      config: The architecture.
      features: Output axes.
      kernel_axes: Logical axes of the kernel, as many as it has dimensions.
      dtype: Dtype of the computation, to which input and kernel are cast; None for that of activations.
      narrow: See `products.product`.
      method: What acts on the input and the output; None for nothing.
      distribution: "truncated_normal" or "normal", of variance `variance / fan_in`.
      variance: See `distribution`.
      num_inputs: How many of the last input axes are contracted.
      join_axes: Whether the kernel is stored as one matrix [inputs, outputs], its axes joined, as T5X's
        unscanned models do, or with its axes apart, as T5X's scanned models do.
    """

    config: Architecture
    features: tuple[int, ...]
    kernel_axes: tuple[str, ...]
    dtype: Any = None
    distribution: Literal["truncated_normal", "normal"] = "truncated_normal"
    variance: float = 1.0
    num_inputs: int = 1
    join_axes: bool = True
    narrow: bool = False
    method: Method | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "..."]) -> Float[jax.Array, "..."]:
        """Returns the inputs with their last `num_inputs` axes replaced by `features`."""
        x = jnp.asarray(inputs)
        in_shape = x.shape[-self.num_inputs :]
        shape = (*in_shape, *self.features)
        stored = (math.prod(in_shape), math.prod(self.features)) if self.join_axes else shape
        num_in = 1 if self.join_axes else self.num_inputs
        init = nn.initializers.variance_scaling(
            self.variance,
            "fan_in",
            self.distribution,
            in_axis=tuple(range(num_in)),
            out_axis=tuple(range(num_in, len(stored))),
        )
        kernel = param("kernel", init, stored, self.config.parameter_dtype, self.kernel_axes)
        if self.method is None:
            return self._product(x, kernel)
        linear = Linear(self, *self._joined_axes(math.prod(in_shape)))
        x = self.method.input_of(linear, x)
        return self.method.output_of(linear, x, self._product(x, kernel))

    def _joined_axes(self, inputs: int) -> tuple[tuple[int, str], tuple[int, str]]:
        """Width and logical name of the input's axes, and of the output's, each as one."""
        num_in = 1 if self.join_axes else self.num_inputs
        names = (self.kernel_axes[:num_in], self.kernel_axes[num_in:])
        # Heads and their width are the only axes that come apart.
        of_inputs, of_outputs = (n[0] if len(n) == 1 else f"joined_{n[-1]}" for n in names)
        return (inputs, of_inputs), (math.prod(self.features), of_outputs)

    def _product(self, x: Array, kernel: jax.Array) -> jax.Array:
        """The product of the input and the kernel, as it is stored."""
        dtype = self.dtype or self.config.activation_dtype
        held = kernel.astype(dtype) if kernel.dtype == jnp.int8 else kernel
        leading, in_shape = x.shape[: -self.num_inputs], x.shape[-self.num_inputs :]
        num_in = 1 if self.join_axes else self.num_inputs
        # As it is stored: with its axes apart it would be copied into another order on CPUs, and so would what the
        # kernel for attention takes. Plain attention's weights are kept once more on TPUs if heads come joined.
        if self.join_axes and (
            partitioning.platform() == "cpu" or fused_attention.has_tpu_kernel()
        ):
            x = jnp.reshape(x, (*leading, kernel.shape[0]))
        elif self.join_axes:
            held, num_in = jnp.reshape(held, (*in_shape, *self.features)), self.num_inputs
        axes = tuple(range(num_in))
        product = products.product(x, held, axes, dtype, narrow=self.narrow)
        product = jnp.reshape(product, (*leading, *self.features))
        if kernel.dtype != jnp.int8:
            return product
        # One factor for each output: applied to the product, it leaves no kernel in floating point to be kept.
        scale = jnp.reshape(
            self.get_variable("params", "kernel_scale"),
            (1,) * len(leading) + self.features,
        )
        return jnp.asarray(jnp.asarray(product, jnp.float32) * scale, dtype)


class RMSNorm(nn.Module):
    """T5's layer norm: scaled by the root mean square, without mean subtraction or bias.

    Attributes:
      config: The architecture.
    """

    config: T5Config

    @nn.compact
    def __call__(self, x: Float[Array, "B L H"]) -> Float[jax.Array, "B L H"]:
        """Returns the normalized input in the activation dtype; the statistics are float32."""
        dtype, width = self.config.activation_dtype, x.shape[-1]
        wide = jnp.asarray(x, jnp.float32)
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = (wide * jax.lax.rsqrt(mean_square + NORM_EPSILON)).astype(dtype)
        scale = param(
            "scale", nn.initializers.ones, (width,), self.config.parameter_dtype, ("embed",)
        )
        return normed * jnp.asarray(scale, dtype).reshape((1,) * (x.ndim - 1) + (width,))


class Mlp(nn.Module):
    """The feed-forward block: activations of input projections, multiplied, then one output projection.

    Attributes:
      config: The architecture.
      deterministic: Whether dropout is off.
      method: What acts on its linear maps; None for nothing.
    """

    config: StackArchitecture
    deterministic: bool
    method: Method | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B L H"]) -> Float[jax.Array, "B L H"]:
        """Returns the block's output for each position."""
        cfg = self.config
        gated = len(cfg.mlp_activations) > 1
        dense = functools.partial(Dense, cfg, method=self.method)
        projected = [
            dense((cfg.mlp_dim,), ("embed", "mlp"), name=f"wi_{i}" if gated else "wi")(x)
            for i in range(len(cfg.mlp_activations))
        ]

        def activate(*projected: jax.Array) -> jax.Array:
            functions = (ACTIVATIONS[name] for name in cfg.mlp_activations)
            activated = (function(y) for function, y in zip(functions, projected, strict=True))
            return functools.reduce(operator.mul, activated)

        if partitioning.platform() == "cpu":
            # Else the backward pass keeps twice as much: what is in the middle of it is cheap to compute again.
            activate = jax.checkpoint(activate)
        y = activate(*projected)
        y = shared_dropout(cfg.dropout_rate, self.deterministic)(y)
        y = constrain(y, ("batch", "length", "mlp"))
        return dense((cfg.emb_dim,), ("mlp", "embed"), name="wo")(y)


class TokenEmbedder(nn.Module):
    """The embedding table, shared by encoder and decoder (and by the output head of T5 1.0).

    Attributes:
      config: The architecture.
    """

    config: T5Config

    def setup(self) -> None:
        """Declares the table [V, H]."""
        shape = (self.config.vocab_size, self.config.emb_dim)
        init = nn.initializers.normal(stddev=1.0)
        self.embedding = param(
            "embedding", init, shape, self.config.parameter_dtype, ("vocab", "embed")
        )

    def __call__(self, ids: Int[Array, "B L"]) -> Float[jax.Array, "B L H"]:
        """Returns the rows of the ids, in the activation dtype; an id outside the table gives NaN.

        Source: T5X `layers.Embed`. Differs: a gather, where T5X multiplies with one-hot rows.
        """
        rows = jnp.take(self.embedding, jnp.asarray(ids, jnp.int32), axis=0, mode="fill")
        return constrain(rows.astype(self.config.activation_dtype), RESIDUAL)

    def attend(
        self, hidden: Float[Array, "B T H"], *, narrow: bool = False
    ) -> Float[jax.Array, "B T V"]:
        """Returns float32 logits of each table row, rescaled by 1/sqrt(H) as the tied head of T5 1.0 is.

        Args:
          hidden: [B, T, H].
          narrow: See `products.product`.
        """
        logits = products.product(hidden, self.embedding, (1,), jnp.float32, narrow=narrow)
        return logits / math.sqrt(self.config.emb_dim)
