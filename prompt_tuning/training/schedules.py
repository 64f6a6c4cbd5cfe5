"""Learning rates as products of named factors, with T5X's names."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Schedule


class _Settings(NamedTuple):
    """Numbers that the factors read; steps are counts of updates."""

    base_learning_rate: float
    warmup_steps: int
    decay_factor: float
    steps_per_decay: int
    steps_per_cycle: int


def _constant(step: jax.Array, s: _Settings) -> jax.Array:
    return jnp.full_like(step, s.base_learning_rate)


def _linear_warmup(step: jax.Array, s: _Settings) -> jax.Array:
    return jnp.minimum(1.0, step / s.warmup_steps)


def _linear_decay(step: jax.Array, s: _Settings) -> jax.Array:
    falling = 1.0 + s.decay_factor * (s.warmup_steps - step)
    return s.base_learning_rate * jnp.minimum(step / s.warmup_steps, falling)


def _rsqrt_decay(step: jax.Array, s: _Settings) -> jax.Array:
    return 1.0 / jnp.sqrt(jnp.maximum(step, s.warmup_steps))


def _rsqrt_normalized_decay(step: jax.Array, s: _Settings) -> jax.Array:
    return s.warmup_steps**0.5 / jnp.sqrt(jnp.maximum(step, s.warmup_steps))


def _decay_every(step: jax.Array, s: _Settings) -> jax.Array:
    return jnp.power(s.decay_factor, jnp.floor(step / s.steps_per_decay))


def _cosine_decay(step: jax.Array, s: _Settings) -> jax.Array:
    progress = jnp.maximum(0.0, (step - s.warmup_steps) / s.steps_per_cycle)
    return jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(jnp.pi * (progress % 1.0))))


_FACTORS: Mapping[str, Callable[[jax.Array, _Settings], jax.Array]] = {
    "constant": _constant,
    "linear_warmup": _linear_warmup,
    "linear_decay": _linear_decay,
    "rsqrt_decay": _rsqrt_decay,
    "rsqrt_normalized_decay": _rsqrt_normalized_decay,
    "decay_every": _decay_every,
    "cosine_decay": _cosine_decay,
}
# Settings that a factor divides by, directly or at step 0.
_DIVISORS: Mapping[str, str] = {
    "linear_warmup": "warmup_steps",
    "linear_decay": "warmup_steps",
    "rsqrt_decay": "warmup_steps",
    "rsqrt_normalized_decay": "warmup_steps",
    "decay_every": "steps_per_decay",
    "cosine_decay": "steps_per_cycle",
}


def create_learning_rate_scheduler(
    factors: str = "constant * linear_warmup * rsqrt_decay",
    base_learning_rate: float = 0.5,
    warmup_steps: int = 1000,
    decay_factor: float = 0.5,
    steps_per_decay: int = 20000,
    steps_per_cycle: int = 100000,
    step_offset: int = 0,
    min_learning_rate: float = 1e-8,
) -> Schedule:
    """Returns the learning rate as a function of the step: the product of `factors`.

    With `w = warmup_steps` and `s = max(0, step - step_offset)`, the factors are

    - `constant`: `base_learning_rate`.
    - `linear_warmup`: `min(1, s / w)`.
    - `linear_decay`: `base_learning_rate * min(s / w, 1 + decay_factor * (w - s))`. It is a whole schedule: do not
      multiply it by `constant` or `linear_warmup`.
    - `rsqrt_decay`: `1 / sqrt(max(s, w))`.
    - `rsqrt_normalized_decay`: `sqrt(w) / sqrt(max(s, w))`.
    - `decay_every`: `decay_factor ** (s // steps_per_decay)`.
    - `cosine_decay`: from 1 to 0 over each cycle of `steps_per_cycle` steps after warmup.

    Args:
      factors: Names of factors joined by `*`.
      base_learning_rate: The constant.
      warmup_steps: Steps of warmup.
      decay_factor: See `linear_decay` and `decay_every`.
      steps_per_decay: Steps between two decays of `decay_every`.
      steps_per_cycle: Length of a cosine cycle in steps.
      step_offset: Step at which the schedule begins.
      min_learning_rate: Smallest value returned, so that a decay never gets to 0 or below.

    Returns:
      A function of an int or int32 scalar that returns a float32 scalar.

    Raises:
      ConfigError: A factor is unknown, or a number of steps that a factor divides by is below 1.

    Source:
      t5x:t5x/utils.py (`create_learning_rate_scheduler`), a name that gin files bind.
    """
    names = [name.strip() for name in factors.split("*")]
    settings = _Settings(
        base_learning_rate, warmup_steps, decay_factor, steps_per_decay, steps_per_cycle
    )
    for name in names:
        if name not in _FACTORS:
            raise ConfigError(
                "Unknown factor in create_learning_rate_scheduler.factors",
                got=name,
                expected=f"one of {', '.join(sorted(_FACTORS))}, joined by '*'",
                fix="correct the name",
                name=name,
                candidates=_FACTORS,
            )
        divisor = _DIVISORS.get(name)
        if divisor is not None and getattr(settings, divisor) < 1:
            raise ConfigError(
                f"create_learning_rate_scheduler.{divisor}, which {name} divides by",
                got=getattr(settings, divisor),
                expected="at least 1",
                fix=f"set {divisor} or drop {name} from factors",
            )

    def learning_rate(step: int | jax.Array) -> jax.Array:
        # The offset is taken off in int32: float32 counts steps exactly only up to 2**24.
        since = jnp.maximum(0, jnp.asarray(step, jnp.int32) - step_offset).astype(jnp.float32)
        rate = jnp.ones((), jnp.float32)
        for name in names:
            rate = rate * _FACTORS[name](since, settings)
        return jnp.maximum(rate, min_learning_rate)

    return learning_rate


def counted_from(schedule: Schedule, step: int) -> Schedule:
    """Returns `schedule` for a run whose first update is update `step` of the optimizer, as T5X counts it."""
    return lambda updates: schedule(step + updates)
