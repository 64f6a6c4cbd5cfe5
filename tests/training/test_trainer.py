"""Learning rates of parts: told by regular expressions, applied to what these match, and to nothing else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.trainer import Trainer

PROMPT, STACKED, HEAD = "encoder/prompt/prompt", "encoder/encoder/mlp/a", "decoder/a"
SHAPES = {PROMPT: (4, 8), STACKED: (8, 2, 5), HEAD: (6,)}
RATE_A = lambda step: jnp.float32(0.01) / (step + 1)  # noqa: E731


def _trainer(**rates) -> Trainer:
    optimizer = Adafactor(multiply_by_parameter_scale=False, weight_decay_rate=1e-5)
    return Trainer(optimizer, lambda step: jnp.float32(0.3), **rates)


def _train(trainer: Trainer) -> tuple[dict, Any]:
    """Parameters by path after three updates, and the optimizer's state."""
    tx = trainer.make_tx()
    params = tree.unflatten({path: jnp.ones(shape) for path, shape in SHAPES.items()})
    state = tx.init(params)
    update = jax.jit(tx.update)
    for i in range(3):
        flat = {p: jax.random.normal(jax.random.key(i), shape) for p, shape in SHAPES.items()}
        updates, state = update(tree.unflatten(flat), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return tree.flatten(params), state


@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_each_part_trains_as_it_does_with_its_rate_for_all():
    together, state = _train(_trainer(learning_rates_by_regex={".*/a": RATE_A}))
    alone, plain_state = _train(_trainer())
    other, _ = _train(Trainer(_trainer().optimizer, RATE_A))
    np.testing.assert_array_equal(together[PROMPT], alone[PROMPT])
    for path in (STACKED, HEAD):
        np.testing.assert_array_equal(together[path], other[path])
        assert np.abs(together[path] - alone[path]).max() > 0.01
    # Checkpoints hold the state, by its structure.
    assert jax.tree.structure(state) == jax.tree.structure(plain_state)


@pytest.mark.parametrize(
    ("regexes", "text"),
    [
        ([".*/a", "nothing"], "matches no trainable parameter: got 'nothing'"),
        ([".*/a", "decoder/.*"], "matches decoder/a more than once"),
    ],
)
def test_an_expression_without_parameters_or_two_for_one_are_refused(regexes, text):
    trainer = _trainer(learning_rates_by_regex=dict.fromkeys(regexes, RATE_A))
    with pytest.raises(ConfigError, match=text):
        trainer.check_paths(SHAPES)


@pytest.mark.parametrize("rates", [{"(": RATE_A}, {".*": 0.3}, {1: RATE_A}])
def test_rates_of_another_form_are_refused(rates):
    with pytest.raises(ConfigError, match="learning_rates_by_regex.*Fix: write it as"):
        _trainer(learning_rates_by_regex=rates)
