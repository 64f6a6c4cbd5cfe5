"""Slots: rows of one decoder in which inputs begin and end on their own, each with its prompt and with what was tuned.

A slot holds what decoding reads of its input, the decoder's cache and the decoder's parameters of its own, so that what
it came from (a row of the table of prompts, the encoder's output) is not needed any more.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from prompt_tuning import tree
from prompt_tuning.decoding.rows import Decoded, Rows, decode_steps
from prompt_tuning.models.encoder_decoder import Encoded, EncoderDecoderModel
from prompt_tuning.models.special_ids import in_ids_of
from prompt_tuning.prompts import table
from prompt_tuning.types import Array, Batch, PyTree


class Slots(NamedTuple):
    """R rows of a decoder.

    Attributes:
      cache: The collection `cache`, with an index for each row.
      keys: The collection `encoded`, as wide as the longest input.
      tokens: [R, L] ids that were encoded.
      prompt_mask: [R, P]; None for a model without prompts.
      added: Path -> [R, ...] of the decoder's parameters that rows have of their own.
    """

    cache: PyTree
    keys: PyTree
    tokens: jax.Array
    prompt_mask: jax.Array | None
    added: dict[str, jax.Array]


def begin(model: EncoderDecoderModel, params: PyTree, batch: Batch, length: int) -> Slots:
    """Encodes the inputs of a batch, and returns slots of as many rows, as wide as these, at their first position.

    Args:
      model: The model, of unscanned layers where it `decodes_apart`.
      params: All parameters, with `table.TABLE`.
      batch: `encoder_input_tokens` and `table.INDEX`.
      length: Tokens to decode at most.
    """
    encoded = model.encode(params, in_ids_of(model.config.ids, batch))
    start = model.start_decoding(encoded, length)
    rows, axis = encoded.tokens.shape[0], _batch_axis(model)

    def of_each_row(leaf: jax.Array) -> jax.Array:
        # One position for all of a batch; with layers in front where they are scanned.
        return jnp.repeat(leaf[..., None], rows, axis) if leaf.ndim == axis else leaf

    own = params[table.TABLE].get("added", {})
    return Slots(
        jax.tree.map(of_each_row, start["cache"]),
        start["encoded"],
        encoded.tokens,
        encoded.prompt_mask,
        {p: x for p, x in tree.flatten(encoded.params).items() if p in own and _is_decoders(p)},
    )


def put(model: EncoderDecoderModel, slots: Slots, new: Slots, rows: Int[Array, " B"]) -> Slots:
    """Returns the slots with those of a batch of B inputs in some rows; beyond the last row is nowhere."""

    def into(axis: int):
        def write(kept: jax.Array, x: jax.Array) -> jax.Array:
            inner = tuple(slice(0, size) for size in x.shape[axis + 1 :])
            place = (*[slice(None)] * axis, rows, *inner)
            return kept.at[place].set(x, mode="drop")

        return write

    # Keys behind those of a shorter input are another's, and hidden as padding.
    missing = slots.tokens.shape[1] - new.tokens.shape[1]
    padded = jnp.pad(new.tokens, ((0, 0), (0, missing)), constant_values=model.config.ids.pad)
    of_layers, of_rows = into(_batch_axis(model)), into(0)
    return Slots(
        jax.tree.map(of_layers, slots.cache, new.cache),
        jax.tree.map(of_layers, slots.keys, new.keys),
        *jax.tree.map(of_rows, slots[2:], (padded, *new[3:])),
    )


def advance(
    model: EncoderDecoderModel,
    params: PyTree,
    slots: Slots,
    rows: Rows,
    steps: Int[Array, ""],
    stops_early: jax.Array,
    *,
    width: int,
    length: int,
    most_steps: int,
    alternatives: int,
) -> tuple[Slots, Decoded]:
    """Decodes the first slots; see `decode_steps`.

    Args:
      model: See `begin`.
      params: All parameters.
      slots: What `put` returned.
      rows: Where each of the first slots is; what lies behind these is neither read nor computed.
      steps: See `decode_steps`.
      stops_early: See `decode_steps`.
      width: Tokens of the longest input in a live slot, as it was padded.
      length: See `begin`.
      most_steps: See `decode_steps`.
      alternatives: See `decode_steps`.
    """
    axis, count = _batch_axis(model), rows.live.shape[0]
    first = functools.partial(jax.lax.slice_in_dim, start_index=0, limit_index=count)
    of_layers = functools.partial(jax.tree.map, functools.partial(first, axis=axis))
    tokens, prompt_mask, added = jax.tree.map(first, slots[2:])
    unread = tokens.shape[1] - width
    keys = jax.tree.map(lambda x: x[..., : x.shape[-1] - unread], of_layers(slots.keys))
    tokens = tokens[:, :width]
    positions = width + model.num_prompt_positions
    if prompt_mask is not None:
        positions = width + prompt_mask.shape[1]
    own = {**tree.flatten(params), **added}
    # Its shape is read: what is attended to has been kept.
    hidden = jnp.zeros((count, positions, model.config.emb_dim))
    encoded = Encoded(tree.unflatten(own), tokens, hidden, prompt_mask)

    def tokens_to_logits(ids: jax.Array, cache: PyTree) -> tuple[jax.Array, PyTree]:
        return model.next_logits(encoded, {"encoded": keys, "cache": cache}, ids, length)

    cache, decoded = decode_steps(
        tokens_to_logits,
        of_layers(slots.cache),
        rows,
        most_steps=most_steps,
        steps=steps,
        stops_early=stops_early,
        eos_id=model.config.ids.eos,
        alternatives=alternatives,
    )
    put_back = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=0, axis=axis)
    return slots._replace(cache=jax.tree.map(put_back, slots.cache, cache)), decoded


def _is_decoders(path: str) -> bool:
    """Returns whether a parameter is one of the decoder's layers."""
    return path.startswith("decoder/")


def _batch_axis(model: EncoderDecoderModel) -> int:
    """The axis of rows in caches and keys."""
    return int(model.module.scan_layers)
