"""The residual reparametrization's way into a plain prompt."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.params import residual
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.types import Array

_SETTINGS = ("activation", "repeats")
# Compiled as in the model, of the same operations: the bits are the same.
_compute = jax.jit(residual.reparametrized, static_argnames=_SETTINGS)


def fold(arrays: Mapping[str, Array], settings: Mapping[str, Any]) -> dict[str, Array]:
    """Returns what was trained with the prompt that the encoder computes in place of the prompt and the MLP.

    Args:
      arrays: Path -> array: all that was trained.
      settings: The method's (`Method.describe`).
    """
    names = {path: path.rpartition("/")[2] for path in arrays}
    weights = {n: jnp.asarray(arrays[path]) for path, n in names.items() if n in residual.NAMES}
    prompt = jnp.asarray(arrays[PROMPT_PATH])
    made = _compute(prompt, weights, **{name: settings[name] for name in _SETTINGS})
    kept = {path: x for path, x in arrays.items() if names[path] not in residual.NAMES}
    return {**kept, PROMPT_PATH: made}
