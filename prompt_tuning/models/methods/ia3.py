"""(IA)3: learned factors for keys, values and the hidden units of feed-forward blocks."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_choice, texts_of
from prompt_tuning.models.methods.method import Linear, Method
from prompt_tuning.params.names import IA3_SCALING, LINEAR_MAPS
from prompt_tuning.types import Array


@dataclasses.dataclass(frozen=True)
class IA3(Method):
    """One factor for each output, or each input, of some linear maps; all start at 1, where nothing changes.

    The paper's three vectors are l_k and l_v, on the outputs of `key` and `value` in self-attention and in attention to
    the encoder, and l_ff, on the input of `wo`: what both halves of a gated block make together, so that it is the same
    as T-Few's factor on the output of `wi_1`.

    Attributes:
      path: See `Method`.
      outputs: Names of the maps whose outputs are scaled.
      inputs: Names of the maps whose inputs are scaled.

    Raises:
      ConfigError: If a name is not that of a linear map, or in both lists.

    Source: Liu et al. 2022, section 3.3; the authors' `ia3_scaling`. Differs: factors are applied in float32 whatever
      the activations are, so that their gradients are sums in float32.
    """

    outputs: tuple[str, ...] = ("key", "value")
    inputs: tuple[str, ...] = ("wo",)

    def __post_init__(self) -> None:
        """Makes the names hashable and checks them."""
        for field in ("outputs", "inputs"):
            names = texts_of(f"methods.IA3.{field}", getattr(self, field))
            for name in names:
                check_choice(f"methods.IA3.{field}", name, LINEAR_MAPS)
            # In one order, so that equal settings are the same value.
            ordered = tuple(name for name in LINEAR_MAPS if name in names)
            object.__setattr__(self, field, ordered)
        both = sorted({*self.outputs} & {*self.inputs})
        if both or not (self.outputs or self.inputs):
            raise ConfigError(
                "methods.IA3 scales each linear map once, and at least one",
                got=f"outputs = {self.outputs}, inputs = {self.inputs}",
                expected="names in one of the two lists",
                fix=f"take {both[0]!r} out of one of them" if both else "leave both out",
            )

    def check(self, added: Sequence[str]) -> None:
        """Raises ConfigError if the model has no linear map of one of the names; see `Method`."""
        there = {path.split("/")[-2] for path in added}
        missing = [name for name in (*self.outputs, *self.inputs) if name not in there]
        if missing:
            field = "outputs" if missing[0] in self.outputs else "inputs"
            raise ConfigError(
                f"methods.IA3.{field} names a linear map that this model has not",
                got=missing[0],
                expected="wi in a block without a gate, wi_0 and wi_1 in one with",
                fix=f"leave {missing[0]!r} out of methods.IA3.{field}",
            )

    def input_of(self, linear: Linear, x: Float[Array, "R L ..."]) -> Float[Array, "R L ..."]:
        """Returns `x`, scaled where `inputs` says so."""
        return _scaled(x, linear, linear.inputs) if linear.name in self.inputs else x

    def output_of(
        self, linear: Linear, x: Float[Array, "R L ..."], y: Float[jax.Array, "R L ..."]
    ) -> Float[jax.Array, "R L ..."]:
        """Returns `y`, scaled where `outputs` says so."""
        return _scaled(y, linear, linear.outputs) if linear.name in self.outputs else y


def _scaled(x: Array, linear: Linear, place: tuple[int, str]) -> jax.Array:
    """`x` times the factors of a place, whose width its axes after the second make up."""
    width, axis = place
    factors = linear.parameter(
        IA3_SCALING, nn.initializers.ones, (width,), (axis,), rows=x.shape[0]
    )
    factors = jnp.reshape(factors, (*factors.shape[:2], *x.shape[2:]))
    return (jnp.asarray(x, jnp.float32) * factors).astype(x.dtype)
