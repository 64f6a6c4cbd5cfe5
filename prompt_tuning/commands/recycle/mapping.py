"""Maps prompts from one model to another, learned from the embeddings of the tokens that both know.

Source: Lester et al. 2022, "Reducing Retraining by Recycling Parameter-Efficient Prompts",
https://arxiv.org/abs/2208.05577, whose names these are; the authors' `recycling/recycle.py`, whose numbers.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from prompt_tuning.types import Array

# The hidden layer is so many times as wide as the target model.
_HIDDEN_SCALE = 4
_EPOCHS, _BATCH_SIZE, _LEARNING_RATE = 25, 50, 3e-4
_Params = dict[str, jax.Array]


def linear(
    prompt: Float[np.ndarray, "P H"],
    source: Float[np.ndarray, "K H"],
    target: Float[np.ndarray, "K G"],
) -> Float[np.ndarray, "P G"]:
    """Returns the prompt times the matrix that maps the source's embeddings to the target's with the least squares.

    It is also the paper's `lin-comb`, which writes each row as a combination of the source's embeddings and takes the
    same combination of the target's: of all solutions both take the smallest, and are then prompt * pinv(source) *
    target.

    Args:
      prompt: [P, H] of the source model.
      source: [K, H] embeddings of some tokens in the source model.
      target: [K, G] embeddings of the same tokens in the target model.

    Returns:
      [P, G] float32; computed in float64.
    """
    matrix, *_ = np.linalg.lstsq(source.astype(np.float64), target.astype(np.float64), rcond=None)
    return (prompt.astype(np.float64) @ matrix).astype(np.float32)


def network(
    prompt: Float[np.ndarray, "P H"],
    source: Float[np.ndarray, "K H"],
    target: Float[np.ndarray, "K G"],
) -> Float[np.ndarray, "P G"]:
    """Returns the prompt mapped by a network of one hidden layer that was trained to map the embeddings.

    Args:
      prompt: See `linear`.
      source: See `linear`.
      target: See `linear`.

    Returns:
      [P, G] float32; the same every time on one machine.

    Source: as the module; Adam on the halved mean square. Differs: what is left over of an epoch's last batch waits for
      the next epoch's order.
    """
    tx, rng = optax.adam(_LEARNING_RATE), jax.random.key(0)
    init_rng, order_rng = jax.random.split(rng)
    params = _init(init_rng, source.shape[1], target.shape[1])
    batch_size = min(_BATCH_SIZE, len(source))
    num_batches = len(source) // batch_size

    @jax.jit
    def epoch(state, rng, source, target):
        order = jax.random.permutation(rng, len(source))[: num_batches * batch_size]

        def step(state, rows):
            params, opt_state = state
            grads = jax.grad(_loss)(params, source[rows], target[rows])
            updates, opt_state = tx.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, order.reshape(num_batches, batch_size))[0]

    state, tables = (params, tx.init(params)), (jnp.asarray(source), jnp.asarray(target))
    for epoch_rng in jax.random.split(order_rng, _EPOCHS):
        state = epoch(state, epoch_rng, *tables)
    return np.asarray(jax.jit(_mapped)(state[0], jnp.asarray(prompt)))


# The paper's names; the authors' code has `jax-nn`, `tf-lstsq` and `linear-combination`.
RECYCLERS = {"v2v-nn": network, "v2v-lin": linear, "lin-comb": linear}


def _init(rng: jax.Array, num_inputs: int, num_outputs: int) -> _Params:
    """Weights as Linen's `Dense` starts them."""
    hidden = _HIDDEN_SCALE * num_outputs
    kernel = functools.partial(jax.nn.initializers.lecun_normal(), dtype=jnp.float32)
    first, second = jax.random.split(rng)
    return {
        "in": kernel(first, (num_inputs, hidden)),
        "in_bias": jnp.zeros((1, hidden)),
        "out": kernel(second, (hidden, num_outputs)),
        "out_bias": jnp.zeros((1, num_outputs)),
    }


def _mapped(params: _Params, x: Array) -> jax.Array:
    """What the network makes of rows."""
    hidden = jax.nn.relu(x @ params["in"] + params["in_bias"])
    return hidden @ params["out"] + params["out_bias"]


def _loss(params: _Params, source: Array, target: Array) -> jax.Array:
    """Half of the mean square of what is wrong."""
    return 0.5 * jnp.mean(jnp.square(_mapped(params, source) - target))
