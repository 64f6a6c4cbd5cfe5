"""Array types, the legend of axis letters used in every signature, and the token ids that have a meaning.

Axis letters: `B` batch, `L` encoder (token) length, `T` decoder length, `P` prompt length, `S = P + L`, `H` embed,
`N` heads, `D` head dim, `F` mlp, `V` vocab. Mesh axes: `data` and `model`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
# A nested dict whose leaves are arrays (parameters, gradients, optimizer slots).
PyTree = Any
# Feature name -> array with the batch as its first axis.
Batch = Mapping[str, Array]
# The feature of a batch [B] int32 that says which of its method's tasks (`Method.task_names`) each row is of.
TASK = "encoder_task"
# (params, batch, dropout_rng or None) -> logits [B, T, V] float32.
ApplyFn = Callable[[PyTree, Batch, jax.Array | None], jax.Array]
# step (int32 scalar) -> learning rate (float32 scalar).
Schedule = Callable[[Any], Any]
# text -> token ids without EOS.
EncodeText = Callable[[str], list[int]]


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The token ids that a model gives a meaning to; by default T5's.

    Attributes:
      pad: Padding.
      eos: Ends a sequence.
      start: What the decoder reads first.
    """

    pad: int = 0
    eos: int = 1
    start: int = 0
