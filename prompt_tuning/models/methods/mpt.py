"""MPT: one prompt for all tasks, times a low-rank matrix of each."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import check_count
from prompt_tuning.models.methods.method import Joining
from prompt_tuning.models.methods.of_tasks import OfTasks, needed
from prompt_tuning.params.names import TASK_COLUMNS, TASK_ROWS
from prompt_tuning.types import Array


@dataclasses.dataclass(frozen=True)
class MPT(OfTasks):
    """The model's own prompt [P, H], which tasks share, times columns [P, rank] by rows [rank, H] of the task.

    At the start the product is 1 and every task has the shared prompt.

    Attributes:
      path: See `Method`.
      tasks: See `OfTasks`.
      rank: Rank of a task's matrix.

    Raises:
      ConfigError: If `rank` is not positive.

    Source: Wang et al. 2023, section 3.2; PEFT's `MULTITASK_PROMPT_TUNING`. Differs: starts at 1, where PEFT draws
      columns and rows of deviation 0.02, whose products all but take the prompt away; no distillation.
    """

    rank: int = 1

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_count("methods.MPT.rank", self.rank, "ranks")

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[Array, "B P H"]:
        """Returns the prompt of each row's task, float32; see `Method`."""
        shared = needed(prompt, self)
        num_rows, width = shared.shape[1:]
        columns = self.of_task(
            joining, TASK_COLUMNS, _first_one, (num_rows, self.rank), ("prompt", "rank")
        )
        rows = self.of_task(
            joining, TASK_ROWS, _ones_then_drawn, (self.rank, width), ("rank", "prompt_embed")
        )
        return prompt_of_task(shared, columns, rows)


def prompt_of_task(
    shared: Float[Array, "*B P H"],
    columns: Float[Array, "*B P rank"],
    rows: Float[Array, "*B rank H"],
) -> Float[jax.Array, "*B P H"]:
    """Returns the prompt of a task, or of each of several, float32."""
    return jnp.asarray(shared) * jnp.matmul(columns, rows, precision=jax.lax.Precision.HIGHEST)


def _first_one(rng: jax.Array, shape: tuple[int, ...], dtype: object) -> jax.Array:
    """Columns [T, P, rank]: 1 of the first rank, 0 of the others."""
    del rng
    return jnp.zeros(shape, dtype).at[..., 0].set(1)  # pyright: ignore[reportArgumentType]


def _ones_then_drawn(rng: jax.Array, shape: tuple[int, ...], dtype: object) -> jax.Array:
    """Rows [T, rank, H]: 1 of the first rank, the others drawn, so that they are not alike."""
    drawn = nn.initializers.normal(0.02)(rng, shape, dtype)
    return drawn.at[:, 0].set(1)
