"""What methods share that have parameters for each task of a mixture: the tasks, and those of each example's task."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from prompt_tuning.errors import ConfigError
from prompt_tuning.models.methods.method import Joining, Method
from prompt_tuning.types import Array


@dataclasses.dataclass(frozen=True)
class OfTasks(Method):
    """A method that tells tasks apart.

    Attributes:
      path: See `Method`.
      tasks: Names of SeqIO tasks; their order is that of the parameters. A list of several in the place of one makes
        them one task, such as WSC's, which SuperGLUE trains and evaluates under two names.

    Raises:
      ConfigError: If `tasks` are no different names.
    """

    tasks: tuple[str | tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        """Makes the names hashable and checks them."""
        listed = isinstance(self.tasks, list | tuple)
        tasks = tuple(
            tuple(task) if isinstance(task, list | tuple) else task
            for task in (self.tasks if listed else ())
        )
        names = [n for task in tasks for n in (task if isinstance(task, tuple) else [task])]
        is_text = all(isinstance(name, str) for name in names)
        if not names or not is_text or len(set(names)) < len(names):
            raise ConfigError(
                f"methods.{type(self).__name__}.tasks are no tasks that can be told apart",
                got=self.tasks,
                expected="a list of different names, those of the mixture's tasks",
                fix="bind METHOD_TASKS to such a list",
            )
        object.__setattr__(self, "tasks", tasks)

    @property
    def task_names(self) -> tuple[tuple[str, ...], ...]:
        """See `Method`."""
        return tuple(task if isinstance(task, tuple) else (task,) for task in self.tasks)

    def describe(self) -> dict[str, Any]:
        """Returns name and settings, JSON values."""
        tasks = [list(task) if isinstance(task, tuple) else task for task in self.tasks]
        return {**super().describe(), "tasks": tasks}

    def of_task(
        self,
        joining: Joining,
        name: str,
        init: Callable[..., jax.Array],
        shape: tuple[int, ...],
        axes: tuple[str, ...],
    ) -> Float[jax.Array, "B ..."]:
        """Declares a parameter [tasks, *shape] and returns what of it belongs to the task of each row, [B, *shape].

        Args:
          joining: Where it is declared.
          name: See `Place.parameter`.
          init: See `Place.parameter`.
          shape: What one task has.
          axes: A logical name for each axis of `shape`.

        Raises:
          ConfigError: If the batch does not say of which task its rows are.
        """
        whole = (len(self.tasks), *shape)
        rows, task = joining.embedded.shape[0], joining.task
        values = joining.parameter(name, init, whole, ("tasks", *axes), rows=1)[0, 0]
        if task is None:
            # Shapes are all that counts where parameters are made.
            if not joining.module.is_initializing():
                raise ConfigError(
                    f"methods.{type(self).__name__} has a prompt for each task, and the batch does not say which",
                    got=None,
                    expected=f"the number of one of {list(self.tasks)} for each row",
                    fix="name the task of each example",
                )
            task = jnp.zeros((rows,), jnp.int32)
        # A product with one-hot rows: exact at full precision, and its gradient adds up in one order on every device,
        # as a gather's does not.
        one_hot = jax.nn.one_hot(task, len(self.tasks), dtype=jnp.float32)
        flat = jnp.reshape(values, (len(self.tasks), math.prod(shape)))
        chosen = jnp.matmul(one_hot, flat, precision=jax.lax.Precision.HIGHEST)
        return jnp.reshape(chosen, (rows, *shape))


def needed(prompt: Array | None, method: Method) -> jax.Array:
    """Returns the model's own prompt, or the one that was passed, float32, with an axis for rows: [#B, P, H].

    Raises:
      ConfigError: If there is none.
    """
    if prompt is None:
        raise ConfigError(
            f"methods.{type(method).__name__} changes the model's prompt, and this model has none",
            got="PROMPT = None",
            expected="a prompt",
            fix="bind PROMPT = @prompts.Prompt()",
        )
    own = jnp.asarray(prompt, jnp.float32)
    return own[None] if own.ndim == 2 else own
