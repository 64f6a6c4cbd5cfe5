"""Multitask prompts: one part for all tasks, one for each, put together in four ways."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from prompt_tuning.errors import ConfigError, check_choice, check_count, texts_of
from prompt_tuning.models.masks import PROMPT_SEES
from prompt_tuning.models.methods.method import Joining, Place
from prompt_tuning.models.methods.of_tasks import OfTasks, needed
from prompt_tuning.params.names import SHARED_PROMPT, TASK_PROMPTS
from prompt_tuning.types import Array

ADD, CONCAT, CONCAT_FEATURES, PROJECT = "add", "concat", "concat_features", "project"
COMBINATIONS = (ADD, CONCAT, CONCAT_FEATURES, PROJECT)


@dataclasses.dataclass(frozen=True)
class MultitaskPrompt(OfTasks):
    """A prompt of a shared part and a part of each task.

    | combination | shared part | a task's part, n numbers | prompt |
    |---|---|---|---|
    | add | [P, H] | P H | their sum |
    | concat | [P, H] | `task_length` H | the shared rows, the task's behind them |
    | concat_features | [P, H_s] | P (H - H_s) | rows of the shared numbers, the task's behind them |
    | project | [P, H_s] | H H_s + H | an affine map of each shared row: kernel [H, H_s], then bias [H] |

    The shared part is the model's own prompt, with its length, initializer and file. One that is narrower than the
    model (`shared_features`) is a parameter of the method, and the model then has no prompt of its own.

    Attributes:
      path: See `Method`.
      tasks: See `OfTasks`.
      combination: One of the four.
      task_length: Rows of a task's part, for "concat"; None for as many as the shared part has.
      shared_features: H_s, for "concat_features", and for "project", where None is the model's own prompt.
      shared_length: P where the shared part is a parameter of the method.
      sees: What the prompt's rows see (`masks.with_prompt_visibility`). The authors' configuration of multitask prompts
        has ("causal", "input"), unlike all their others.

    Raises:
      ConfigError: If a setting is none, or not one of this combination.

    Source: the authors' `prompt_tuning/extended/multitask_prompts.py`. Differs: the task is a feature of the batch, not
      the first token of the input; rows of the prompt see each other both ways unless `sees` says otherwise; a task's
      part is called `task_prompts` [T, n] without `/embedding`.
    """

    combination: str = ADD
    task_length: int | None = None
    shared_features: int | None = None
    shared_length: int = 100
    sees: tuple[str, ...] = ("prompt", "input")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        name = f"methods.{type(self).__name__}"
        check_choice(f"{name}.combination", self.combination, COMBINATIONS)
        check_count(f"{name}.task_length", self.task_length, "positions", none_means="P")
        check_count(f"{name}.shared_features", self.shared_features, "numbers", none_means="H")
        check_count(f"{name}.shared_length", self.shared_length, "positions")
        sees = texts_of(f"{name}.sees", self.sees)
        for seen in sees:
            check_choice(f"{name}.sees", seen, PROMPT_SEES)
        object.__setattr__(self, "sees", sees)
        wrong = {
            "task_length": self.task_length is not None and self.combination != CONCAT,
            "shared_features": (self.shared_features is not None) != self._has_own_shared,
        }
        for field in (field for field, is_wrong in wrong.items() if is_wrong):
            raise ConfigError(
                f"{name}.{field} does not belong to combination = {self.combination!r}",
                got=getattr(self, field),
                expected="task_length with 'concat' alone; shared_features with 'concat_features', and with 'project'"
                " where the shared part is narrower than the model",
                fix=f"bind another {name}.{field}",
            )

    @property
    def _has_own_shared(self) -> bool:
        """Whether the shared part is a parameter of the method."""
        is_narrow = self.combination == PROJECT and self.shared_features is not None
        return self.combination == CONCAT_FEATURES or is_narrow

    @property
    def prompt_sees(self) -> tuple[str, ...] | None:
        """See `Method`."""
        return (
            None if {"prompt", "input"} <= {*self.sees} and "causal" not in self.sees else self.sees
        )

    def prompt_length(self, length: int) -> int:
        """Returns how many rows stand in front of the tokens; see `Method`."""
        if self.combination == CONCAT:
            return length + (self.task_length or length)
        return self.shared_length if self._has_own_shared else length

    def prompt_of(
        self, joining: Joining, prompt: Float[Array, "*B P H"] | None
    ) -> Float[Array, "B Q H"]:
        """Returns the prompt of each row's task, float32; see `Method`."""
        rows, _, width = joining.embedded.shape
        shared = self._shared(joining, prompt, width)
        length, features = shared.shape[1:]
        shapes = {
            ADD: (length, width),
            CONCAT: (self.task_length or length, width),
            CONCAT_FEATURES: (length, width - features),
            PROJECT: (features + 1, width),
        }
        shape = shapes[self.combination]
        # As it is stored, so that files are the authors' numbers in the authors' order.
        flat = self.of_task(
            joining,
            TASK_PROMPTS,
            nn.initializers.uniform(),
            (shape[0] * shape[1],),
            ("prompt_embed",),
        )
        if self.combination == PROJECT:
            kernel = jnp.reshape(flat[:, : width * features], (rows, width, features))
            bias = flat[:, None, width * features :]
            precise = jax.lax.Precision.HIGHEST
            return jnp.matmul(shared, jnp.swapaxes(kernel, 1, 2), precision=precise) + bias
        own = jnp.reshape(flat, (rows, *shape))
        if self.combination == ADD:
            return shared + own
        shared = jnp.broadcast_to(shared, (rows, length, features))
        return jnp.concatenate([shared, own], axis=1 if self.combination == CONCAT else 2)

    def _shared(self, place: Place, prompt: Array | None, width: int) -> jax.Array:
        """The shared part, [#B, P, H_s]."""
        if not self._has_own_shared:
            return needed(prompt, self)
        features = self.shared_features
        assert features is not None, "checked with the settings"
        if prompt is not None or features >= width:
            is_wide = features >= width
            raise ConfigError(
                f"methods.{type(self).__name__} has a shared part of its own, narrower than the model",
                got=f"shared_features = {features} of {width}"
                if is_wide
                else "a prompt of the model as well",
                expected=f"shared_features below {width}, and PROMPT = None",
                fix="lower shared_features" if is_wide else "bind PROMPT = None",
            )
        shape, axes = (self.shared_length, features), ("prompt", "prompt_embed")
        return place.parameter(SHARED_PROMPT, _uniform, shape, axes, rows=1)[0]


def _uniform(rng: jax.Array, shape: tuple[int, ...], dtype: object) -> jax.Array:
    """As `prompts.initializers.Uniform` draws a prompt."""
    return jax.random.uniform(rng, shape, dtype, -0.5, 0.5)  # pyright: ignore[reportArgumentType]
