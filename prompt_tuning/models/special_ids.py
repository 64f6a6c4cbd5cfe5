"""Batches as data pipelines make them, in the ids of models that have others for padding and start.

Pipelines know T5's: rows are filled up with 0, and the decoder's inputs begin with 0. A model whose padding is another
id may have 0 among its tokens; behind the last other id of a row it is padding.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from prompt_tuning.types import Array, Batch, SpecialIds

_T5 = SpecialIds()
_PADDED = ("encoder_input_tokens", "decoder_target_tokens")


def in_ids_of(ids: SpecialIds, batch: Batch) -> Mapping[str, Array]:
    """Returns a batch with the padding and the starts that a model has; for T5's ids the batch itself.

    Args:
      ids: The model's.
      batch: Model features, [..., L] and [..., T].
    """
    changed = dict(batch)
    if ids.start != _T5.start and {"decoder_input_tokens", "decoder_target_tokens"} <= set(batch):
        inputs, targets = (
            jnp.asarray(batch[f"decoder_{name}_tokens"]) for name in ("input", "target")
        )
        # 0 at a position that has a target is where it begins: rows, choices and packed examples alike.
        is_start = (inputs == _T5.start) & (targets != _T5.pad)
        changed["decoder_input_tokens"] = jnp.where(is_start, jnp.int32(ids.start), inputs)
    if ids.pad != _T5.pad:
        for name in set(_PADDED) & set(batch):
            tokens = jnp.asarray(batch[name])
            is_behind = jnp.flip(jnp.cumsum(jnp.flip(tokens != _T5.pad, -1), axis=-1), -1) == 0
            changed[name] = jnp.where(is_behind, jnp.int32(ids.pad), tokens)
    return changed
