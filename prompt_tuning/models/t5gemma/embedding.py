"""T5Gemma's token embeddings and the head that is tied to them."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from prompt_tuning.models import layers, products
from prompt_tuning.models.t5gemma.attention import soft_cap
from prompt_tuning.models.t5gemma.config import StackConfig
from prompt_tuning.types import Array


class Embedder(nn.Module):
    """An embedding table, whose rows are scaled by the square root of their width where they enter a stack.

    Attributes:
      config: The stack.
      eoi_token: Id that has an embedding of its own; None for no such.
    """

    config: StackConfig
    eoi_token: int | None = None

    def setup(self) -> None:
        """Declares the table [V, H], and the embedding [H] of the id that has its own."""
        cfg = self.config
        init = nn.initializers.normal(stddev=cfg.emb_dim**-0.5)
        shape, axes = (cfg.vocab_size, cfg.emb_dim), ("vocab", "embed")
        self.embedding = layers.param("embedding", init, shape, cfg.parameter_dtype, axes)
        if self.eoi_token is not None:
            zeros = nn.initializers.zeros
            self.eoi_embedding = layers.param(
                "eoi_embedding", zeros, shape[1:], cfg.parameter_dtype, axes[1:]
            )

    def __call__(self, ids: Int[Array, "B L"]) -> Float[jax.Array, "B L H"]:
        """Returns the scaled rows of the ids, in the activation dtype; an id outside the table gives NaN."""
        dtype = self.config.activation_dtype
        ids = jnp.asarray(ids, jnp.int32)
        rows = jnp.take(self.embedding, ids, axis=0, mode="fill").astype(dtype)
        # The factor is rounded to the activations' dtype, as when the checkpoints were trained.
        rows = rows * jnp.asarray(self.config.emb_dim**0.5, dtype)
        if self.eoi_token is not None:
            own = jnp.asarray(self.eoi_embedding, dtype)[None, None]
            rows = jnp.where((ids == self.eoi_token)[..., None], own, rows)
        return layers.constrain(rows, layers.RESIDUAL)

    def attend(
        self, hidden: Float[Array, "B T H"], softcap: float | None, *, narrow: bool = False
    ) -> Float[jax.Array, "B T V"]:
        """Returns float32 logits of each table row.

        Args:
          hidden: [B, T, H].
          softcap: They are squeezed into (-softcap, softcap); None leaves them.
          narrow: See `products.product`.
        """
        logits = products.product(hidden, self.embedding, (1,), jnp.float32, narrow=narrow)
        return logits if softcap is None else soft_cap(logits, softcap)
