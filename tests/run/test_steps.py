"""What a run compiles, and how."""

import jax
import jax.numpy as jnp

from prompt_tuning.run import steps


def test_on_a_cpu_nothing_large_is_computed_before_it_is_needed():
    def total(x, weights):
        return sum(jnp.sum(jnp.tanh(x @ w) @ w.T) for w in weights)

    jitted = jax.jit(total)
    args = jnp.ones((64, 32)), [jnp.full((32, 512), 0.1 * i) for i in range(8)]
    ours, default = steps.compiled(jitted, *args), jitted.lower(*args).compile()
    # One [64, 512] at a time rather than eight.
    assert _temp_bytes(ours) < _temp_bytes(default) / 4
    assert ours(*args) == default(*args)


def _temp_bytes(program: jax.stages.Compiled) -> int:
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes
