"""Attention masks: boolean [B, 1, Q, K], True where the query may attend to the key.

A prompt stands in front of the tokens, so encoder-side masks are P columns wider than the tokens; P is always found by
`prompt_length`. The head axis is 1: every head sees the same mask.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from prompt_tuning.errors import ConfigError
from prompt_tuning.types import Array

# T5's value of a masked logit. It is finite, so a row without any key attends uniformly instead of giving NaN.
MASKED_LOGIT = -1e10
# What positions of a prompt may see beside themselves; see `with_prompt_visibility`.
PROMPT_SEES = ("prompt", "causal", "input")


def prompt_length(hidden: Float[Array, "B S H"], tokens: Int[Array, "B L"]) -> int:
    """Returns how many prompt positions stand in front of the tokens.

    Args:
      hidden: [B, S, H] embedded or encoded input, with or without a prompt.
      tokens: [B, L] the ids without a prompt.

    Returns:
      P = S - L.

    Raises:
      ConfigError: If there are fewer hidden positions than tokens.
    """
    length = hidden.shape[-2] - tokens.shape[-1]
    if length < 0:
        raise ConfigError(
            "The encoder output is shorter than the encoder input",
            got=f"{hidden.shape[-2]} positions",
            expected=f"at least the {tokens.shape[-1]} tokens",
            fix="pass the same encoder_input_tokens to encode and decode",
        )
    return length


def is_real_position(
    tokens: Int[Array, "B L"],
    length: int,
    prompt_mask: Bool[Array, "B P"] | Int[Array, "B P"] | None,
    segment_ids: Int[Array, "B L"] | None = None,
    *,
    pad: int = 0,
) -> Bool[jax.Array, "B S"]:
    """Returns which encoder positions are real: prompt positions first, then tokens that are not padding.

    Args:
      tokens: [B, L] ids.
      length: P, the prompt's length.
      prompt_mask: [B, P], nonzero where a prompt position is real; None if all are.
      segment_ids: [B, L] packed example of each position, which tells what is real, prompts between the tokens
        included; None where rows are not packed.
      pad: The id of padding.

    Raises:
      ConfigError: If `prompt_mask` is not [B, P].
    """
    shape = (tokens.shape[0], length)
    if prompt_mask is None:
        is_prompt = jnp.ones(shape, jnp.bool_)
    elif tuple(prompt_mask.shape) != shape:
        raise ConfigError(
            "prompt_mask does not fit the batch and the prompt",
            got=tuple(prompt_mask.shape),
            expected=f"[batch, prompt length] = {shape}",
            fix="pass one entry per row and prompt position, or no prompt_mask where there is no prompt",
        )
    else:
        is_prompt = jnp.asarray(prompt_mask) != 0
    if segment_ids is None:
        is_token = jnp.asarray(tokens) != pad
    else:
        is_token = jnp.asarray(segment_ids) > 0
    return jnp.concatenate([is_prompt, is_token], axis=1)


def key_mask(is_key: Bool[Array, "B K"]) -> Bool[jax.Array, "B 1 1 K"]:
    """Returns the mask that joins every query with real keys; what a query that is padding reads, no real one sees."""
    return jnp.asarray(is_key)[:, None, None, :]


def pairwise_mask(
    is_query: Bool[Array, "B Q"],
    is_key: Bool[Array, "B K"],
    query_segments: Int[Array, "B Q"] | None = None,
    key_segments: Int[Array, "B K"] | None = None,
) -> Bool[jax.Array, "B 1 Q K"]:
    """Returns the mask that joins real queries with real keys; with segment ids, within each packed example only."""
    mask = jnp.logical_and(is_query[:, None, :, None], is_key[:, None, None, :])
    if query_segments is None or key_segments is None:
        return mask
    queries, keys = jnp.asarray(query_segments), jnp.asarray(key_segments)
    return jnp.logical_and(mask, queries[:, None, :, None] == keys[:, None, None, :])


def with_keys_in_front(
    mask: Bool[Array, "#B 1 _ L"] | None, num_keys: int
) -> Bool[jax.Array, "#B 1 _ K"] | None:
    """Returns the mask of `num_keys` keys, of which every query sees those in front that `mask` does not know of."""
    if mask is None or mask.shape[-1] == num_keys:
        return mask  # pyright: ignore[reportReturnType]
    width = [(0, 0)] * 3 + [(num_keys - mask.shape[-1], 0)]
    return jnp.pad(jnp.asarray(mask), width, constant_values=True)


def first_key(mask: Bool[Array, "B 1 Q K"]) -> Int[jax.Array, "B Q"]:
    """Returns the first key that each query sees: where the example that it belongs to begins in its row."""
    return jnp.argmax(mask[:, 0], axis=-1).astype(jnp.int32)


def decoder_mask(
    target_tokens: Int[Array, "B T"], segment_ids: Int[Array, "B T"] | None = None, *, pad: int = 0
) -> Bool[jax.Array, "B 1 T T"]:
    """Returns the decoder's self-attention mask under teacher forcing.

    Args:
      target_tokens: [B, T] ids. The targets, not the shifted inputs, tell padding from a start that has the same id.
      segment_ids: [B, T] packed example of each position, or None.
      pad: The id of padding.
    """
    is_target = jnp.asarray(target_tokens) != pad
    mask = pairwise_mask(is_target, is_target, segment_ids, segment_ids)
    # A position sees itself and what came before.
    return jnp.logical_and(mask, np.tri(target_tokens.shape[-1], dtype=np.bool_)[None, None])


def with_prompt_visibility(
    mask: Bool[Array, "B 1 #S S"], length: int, sees: Sequence[str]
) -> Bool[jax.Array, "B 1 S S"]:
    """Returns an encoder's mask in which the positions of the prompt see less; tokens see what they saw.

    Args:
      mask: Of all positions, the prompt's first.
      length: P, the prompt's length.
      sees: What of `PROMPT_SEES` a position of the prompt sees: "prompt", all others of them; "causal", those in front
        of it; "input", the tokens. Itself it always sees.
    """
    width = mask.shape[-1]
    seen = np.zeros((length, width), np.bool_)
    seen[:, :length] = np.eye(length)
    if "causal" in sees:
        seen[:, :length] = np.tri(length)
    if "prompt" in sees:
        seen[:, :length] = True
    seen[:, length:] = "input" in sees
    rows = np.concatenate([seen, np.ones((width - length, width), np.bool_)])
    return jnp.logical_and(mask, rows[None, None])


def mask_bias(mask: Bool[Array, "B 1 Q K"]) -> Float[jax.Array, "B 1 Q K"]:
    """Returns what to add to attention logits, float32: 0 where `mask` is true, -1e10 elsewhere."""
    return jnp.where(mask, jnp.float32(0), jnp.float32(MASKED_LOGIT))
