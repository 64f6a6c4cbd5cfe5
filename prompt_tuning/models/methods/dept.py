"""DePT: a short prompt, and an update of low rank for the embedded tokens, by their position."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_count, check_number
from prompt_tuning.models.methods.method import Method, Tokens
from prompt_tuning.models.methods.starts import as_pytorch
from prompt_tuning.params.names import DEPT_A, DEPT_B
from prompt_tuning.prompts.prompt import PROMPT_AXES
from prompt_tuning.types import Array


@dataclasses.dataclass(frozen=True)
class DePT(Method):
    """Adds alpha / sqrt(rank) * A B to the embedded tokens; row i of A [max_length, rank] is that of the i-th token.

    The prompt stands in front of them and is not changed. A starts as PyTorch's linear maps do, B at 0, where nothing
    is added. Padding gets its rows too, as in the authors' code; nothing reads it.

    Attributes:
      path: See `Method`.
      rank: Columns of A, rows of B.
      alpha: The update's scale, before it is divided by sqrt(rank), not by rank as LoRA's is.
      max_length: Rows of A: tokens of the longest input.

    Raises:
      ConfigError: If a number is not positive.

    Source: Shi and Lipani 2024, section 2.2; the authors' `peft/tuners/prompt_tuning_lora.py`. Differs: shorter inputs
      are not padded to `max_length`; packed examples count from their own first token; the update is made and added in
      float32 whatever the activations are.
    """

    rank: int = 45
    alpha: float = 8.0
    max_length: int = 256

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_count("methods.DePT.rank", self.rank, "columns")
        check_number("methods.DePT.alpha", self.alpha, "(0, inf)")
        check_count("methods.DePT.max_length", self.max_length, "tokens")

    def check_inputs(self, length: int) -> None:
        """Raises ConfigError if an input has more tokens than A has rows."""
        if length > self.max_length:
            raise ConfigError(
                "methods.DePT.max_length is shorter than the inputs",
                got=self.max_length,
                expected=f"at least the {length} tokens of the longest input",
                fix=f"bind methods.DePT.max_length = {length}, or shorter 'inputs' in TASK_FEATURE_LENGTHS",
            )

    def embedded_of(
        self, tokens: Tokens, embedded: Float[jax.Array, "B L H"]
    ) -> Float[jax.Array, "B L H"]:
        """Returns the tokens with the update of their positions."""
        rows, length, width = embedded.shape
        a = tokens.parameter(
            DEPT_A, as_pytorch(self.rank), (self.max_length, self.rank), PROMPT_AXES, rows=rows
        )[:, 0]
        b = tokens.parameter(
            DEPT_B, nn.initializers.zeros, (self.rank, width), PROMPT_AXES, rows=rows
        )[:, 0]
        if tokens.segment_ids is None:
            self.check_inputs(length)
            of_tokens = a[:, :length]
        else:
            # A product with one-hot rows, as `place_prompt` takes the prompt's, for the same reason.
            one_hot = jax.nn.one_hot(tokens.positions(), self.max_length, dtype=jnp.float32)
            of_tokens = _product(one_hot, a)
        update = self.alpha / math.sqrt(self.rank) * _product(of_tokens, b)
        return (jnp.asarray(embedded, jnp.float32) + update).astype(embedded.dtype)


def _product(x: Array, y: Array) -> jax.Array:
    """The product of stacked matrices, exact to float32 on every device."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
