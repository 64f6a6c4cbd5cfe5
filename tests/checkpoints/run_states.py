"""Training states, and directories that hold saved ones, for the tests of this folder."""

import pathlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning import tree
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.partitioning import PjitPartitioner

PROMPT = "encoder/prompt/prompt/prompt"


@flax.struct.dataclass
class State:
    step: jax.Array
    trainable: dict
    opt_state: Any
    rng: jax.Array


def make_state(step, *, shape=(5, 8), key=None, partitioner=None):
    partitioner = partitioner or PjitPartitioner(num_partitions=2)
    values = np.random.default_rng(step).normal(size=shape).astype(np.float32)
    trainable = tree.unflatten({PROMPT: jnp.asarray(values)})
    tx = optax.adafactor(0.3, multiply_by_parameter_scale=False)
    raw = jax.random.key_data(jax.random.key(step))
    state = State(jnp.int32(step), trainable, tx.init(trainable), raw if key is None else key)
    return jax.device_put(state, partitioner.replicated)


def to_abstract(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    assert len(pairs) > 3
    for x, y in pairs:
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_steps(directory, *steps, shape=(5, 8), **kwargs):
    checkpointer = Checkpointer(directory, **kwargs)
    for step in steps:
        checkpointer.save(step, make_state(step, shape=shape), {"step": step})
    checkpointer.close()


def names(directory):
    return sorted(p.name for p in pathlib.Path(directory).iterdir())


def files_of(path):
    return sorted(p for p in path.rglob("*") if p.is_file())
