import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.training.schedules import create_learning_rate_scheduler


def test_traced_steps_give_the_same_rates():
    schedule = create_learning_rate_scheduler(
        "constant * linear_warmup * rsqrt_decay", warmup_steps=10
    )
    steps = jnp.arange(30, dtype=jnp.int32)
    traced = jax.jit(jax.vmap(schedule))(steps)
    np.testing.assert_allclose(traced, [float(schedule(step)) for step in range(30)], rtol=1e-6)
    assert np.argmax(traced) == 10


def test_a_schedule_starts_at_its_offset():
    plain = create_learning_rate_scheduler("constant * linear_warmup", warmup_steps=4)
    offset = create_learning_rate_scheduler(
        "constant * linear_warmup", warmup_steps=4, step_offset=1_100_000
    )
    assert [float(offset(1_100_000 + s)) for s in range(6)] == [float(plain(s)) for s in range(6)]


def test_an_unknown_factor_names_the_closest():
    with pytest.raises(ConfigError, match="Closest matches: linear_warmup"):
        create_learning_rate_scheduler("constant * linear_warm_up")


@pytest.mark.parametrize(
    ("factors", "setting"),
    [
        ("linear_warmup", "warmup_steps"),
        ("rsqrt_decay", "warmup_steps"),
        ("decay_every", "steps_per_decay"),
        ("cosine_decay", "steps_per_cycle"),
    ],
)
def test_a_factor_does_not_divide_by_zero(factors, setting):
    with pytest.raises(ConfigError, match=setting):
        create_learning_rate_scheduler(factors, **{setting: 0})


def test_zero_warmup_is_fine_where_nothing_warms_up():
    assert float(create_learning_rate_scheduler("constant", 0.3, warmup_steps=0)(0)) == np.float32(
        0.3
    )


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(60, 1000), (0.6, 10)])
def test_linear_to_zero_is_t_fews_schedule(warmup_steps, total_steps):
    schedule = create_learning_rate_scheduler(
        "constant * linear_warmup * linear_to_zero",
        base_learning_rate=3e-3,
        warmup_steps=warmup_steps,
        total_steps=total_steps,
        min_learning_rate=0.0,
    )

    def expected(step):
        if step < warmup_steps:
            return step / max(1, warmup_steps)
        return (total_steps - step) / max(1, total_steps - warmup_steps)

    steps = range(0, total_steps + 1, max(1, total_steps // 50))
    np.testing.assert_allclose(
        [float(schedule(step)) for step in steps],
        [3e-3 * expected(step) for step in steps],
        rtol=1e-6,
    )
    assert float(schedule(2 * total_steps)) == 0.0


def test_linear_to_zero_needs_its_end():
    with pytest.raises(ConfigError, match="total_steps"):
        create_learning_rate_scheduler("constant * linear_to_zero")
