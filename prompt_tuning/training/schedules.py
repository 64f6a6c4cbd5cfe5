"""Learning rates as products of named factors, with T5X's names."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.errors import check_choice, check_number
from prompt_tuning.types import Schedule


class _Settings(NamedTuple):
    """Numbers that the factors read; steps are counts of updates."""

    base_learning_rate: float
    warmup_steps: float
    decay_factor: float
    steps_per_decay: int
    steps_per_cycle: int
    total_steps: int | None


_Factor = Callable[[jax.Array, _Settings], jax.Array]


def _linear_to_zero(step: jax.Array, s: _Settings) -> jax.Array:
    assert s.total_steps is not None, "checked, as what a factor divides by"
    left = (s.total_steps - step) / max(1.0, s.total_steps - s.warmup_steps)
    return jnp.clip(left, 0.0, 1.0)


def _cosine(step: jax.Array, s: _Settings) -> jax.Array:
    progress = jnp.maximum(0.0, (step - s.warmup_steps) / s.steps_per_cycle)
    return jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0))))


# Name -> (the factor, the setting that it divides by, directly or at step 0).
_FACTORS: Mapping[str, tuple[_Factor, str | None]] = {
    "constant": (lambda step, s: jnp.full_like(step, s.base_learning_rate), None),
    "linear_warmup": (lambda step, s: jnp.minimum(1.0, step / s.warmup_steps), "warmup_steps"),
    "linear_decay": (
        lambda step, s: (
            s.base_learning_rate
            * jnp.minimum(step / s.warmup_steps, 1.0 + s.decay_factor * (s.warmup_steps - step))
        ),
        "warmup_steps",
    ),
    "linear_to_zero": (_linear_to_zero, "total_steps"),
    "rsqrt_decay": (
        lambda step, s: 1.0 / jnp.sqrt(jnp.maximum(step, s.warmup_steps)),
        "warmup_steps",
    ),
    "rsqrt_normalized_decay": (
        lambda step, s: s.warmup_steps**0.5 / jnp.sqrt(jnp.maximum(step, s.warmup_steps)),
        "warmup_steps",
    ),
    "decay_every": (
        lambda step, s: jnp.power(s.decay_factor, jnp.floor(step / s.steps_per_decay)),
        "steps_per_decay",
    ),
    "cosine_decay": (_cosine, "steps_per_cycle"),
}


def create_learning_rate_scheduler(
    factors: str = "constant * linear_warmup * rsqrt_decay",
    base_learning_rate: float = 0.5,
    warmup_steps: float = 1000,
    decay_factor: float = 0.5,
    steps_per_decay: int = 20000,
    steps_per_cycle: int = 100000,
    step_offset: int = 0,
    min_learning_rate: float = 1e-8,
    total_steps: int | None = None,
) -> Schedule:
    """Returns the learning rate as a function of the step: the product of `factors`.

    With `w = warmup_steps` and `s = max(0, step - step_offset)`, the factors are

    - `constant`: `base_learning_rate`.
    - `linear_warmup`: `min(1, s / w)`.
    - `linear_decay`: `base_learning_rate * min(s / w, 1 + decay_factor * (w - s))`. It is a whole schedule: do not
      multiply it by `constant` or `linear_warmup`.
    - `linear_to_zero`: `min(1, (n - s) / max(1, n - w))` with `n = total_steps`. Behind `constant * linear_warmup` it
      is T-Few's schedule; T5X has no such factor, whose end is that of the run.
    - `rsqrt_decay`: `1 / sqrt(max(s, w))`.
    - `rsqrt_normalized_decay`: `sqrt(w) / sqrt(max(s, w))`.
    - `decay_every`: `decay_factor ** (s // steps_per_decay)`.
    - `cosine_decay`: from 1 to 0 over each cycle of `steps_per_cycle` steps after warmup.

    Args:
      factors: Names of factors joined by `*`.
      base_learning_rate: The constant.
      warmup_steps: Steps of warmup; a fraction, as of a share of a few steps, is one.
      decay_factor: See `linear_decay` and `decay_every`.
      steps_per_decay: Steps between two decays of `decay_every`.
      steps_per_cycle: Length of a cosine cycle in steps.
      step_offset: Step at which the schedule begins.
      min_learning_rate: Smallest value returned, so that a decay never gets to 0 or below.
      total_steps: Step at which `linear_to_zero` gets to 0.

    Returns:
      A function of an int or int32 scalar that returns a float32 scalar.

    Raises:
      ConfigError: A factor is unknown, or a number of steps that a factor divides by is not above 0.

    Source:
      t5x:t5x/utils.py (`create_learning_rate_scheduler`), a name that gin files bind.
    """
    names = [name.strip() for name in factors.split("*")]
    settings = _Settings(
        base_learning_rate,
        warmup_steps,
        decay_factor,
        steps_per_decay,
        steps_per_cycle,
        total_steps,
    )
    check_number(
        "create_learning_rate_scheduler.base_learning_rate", base_learning_rate, "(0, inf)"
    )
    for name in names:
        check_choice("create_learning_rate_scheduler.factors", name, _FACTORS)
        _, divisor = _FACTORS[name]
        if divisor is not None:
            setting = f"create_learning_rate_scheduler.{divisor}, which {name} divides by,"
            check_number(setting, getattr(settings, divisor), "(0, inf)")

    def learning_rate(step: int | jax.Array) -> jax.Array:
        # The offset is taken off in int32: float32 counts steps exactly only up to 2**24.
        since = jnp.maximum(0, jnp.asarray(step, jnp.int32) - step_offset).astype(jnp.float32)
        rate = jnp.ones((), jnp.float32)
        for name in names:
            rate = rate * _FACTORS[name][0](since, settings)
        return jnp.maximum(rate, min_learning_rate)

    return learning_rate


def counted_from(schedule: Schedule, step: int) -> Schedule:
    """Returns `schedule` for a run whose first update is update `step` of the optimizer, as T5X counts it."""
    return lambda updates: schedule(step + updates)
