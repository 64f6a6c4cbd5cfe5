"""A small recurrent decoder with a cache, and what T5X's decoding functions return over it."""

import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.helpers import GOLDEN

BATCH = 5
EOS = 1
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "decode_stand_in.json").read_text())


def load() -> dict[str, np.ndarray]:
    """Returns every array of the reference file."""
    with np.load(GOLDEN / "decode_stand_in.npz") as file:
        return dict(file)


class Decoder:
    """Logits of the next token from the last one and a hidden state: the state is the cache.

    Args:
      batch_axis: Axis of the batch in the cache, as the layouts of T5's layers have it.
    """

    def __init__(self, batch_axis: int = 0):
        arrays = {
            k.removeprefix("weights/"): v for k, v in load().items() if k.startswith("weights/")
        }
        self.start, self.embed = jnp.asarray(arrays["start"]), jnp.asarray(arrays["embed"])
        self.recur, self.out = jnp.asarray(arrays["recur"]), jnp.asarray(arrays["out"])
        self.bias = jnp.asarray(arrays["bias"])
        self.batch_axis = batch_axis

    def cache(self) -> dict[str, Any]:
        hidden = self.start if self.batch_axis == 0 else self.start[None]
        index = jnp.zeros((1,) * self.batch_axis, jnp.int32)
        return {"decoder": {"hidden": hidden, "cache_index": index}}

    def __call__(self, ids: jax.Array, cache: dict[str, Any]) -> tuple[jax.Array, dict[str, Any]]:
        assert ids.ndim == 2 and ids.shape[1] == 1
        cache = cache["decoder"]
        hidden = cache["hidden"] if self.batch_axis == 0 else cache["hidden"][0]
        hidden = jnp.tanh(hidden @ self.recur + self.embed[ids[:, 0]])
        logits = hidden @ self.out + self.bias[None]
        hidden = hidden if self.batch_axis == 0 else hidden[None]
        return logits, {"decoder": {"hidden": hidden, "cache_index": cache["cache_index"] + 1}}

    def teacher_forcing(self, ids: np.ndarray) -> np.ndarray:
        """Returns the logits [B, T, V] of targets [B, T], the decoder being fed the targets shifted right."""
        inputs = np.pad(ids, ((0, 0), (1, 0)))[:, :-1]
        return np.asarray(self._teacher_forcing(jnp.asarray(inputs)))

    @functools.partial(jax.jit, static_argnums=0)
    def _teacher_forcing(self, inputs: jax.Array) -> jax.Array:
        cache, logits = self.cache(), []
        for position in range(inputs.shape[1]):
            step, cache = self(inputs[:, position : position + 1], cache)
            logits.append(step)
        return jnp.stack(logits, axis=1)


def check_ends(ids: np.ndarray) -> None:
    """Asserts that nothing but 0 follows the first EOS of each sequence [..., T]."""
    ended = np.cumsum(ids == EOS, axis=-1) - (ids == EOS) > 0
    assert not ids[ended].any()
