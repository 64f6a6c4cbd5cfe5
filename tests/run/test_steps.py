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
    analyses = [program.memory_analysis() for program in (ours, default)]
    size, default_size = (analysis.temp_size_in_bytes for analysis in analyses if analysis)
    # One [64, 512] at a time rather than eight.
    assert size < default_size / 4
    assert ours(*args) == default(*args)
