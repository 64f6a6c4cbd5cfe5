"""Inputs and targets from one segment of tokens and the mask of its noise."""

from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from prompt_tuning.data.text import token_chunks
from prompt_tuning.data.text.noise_masks import NoiseMaskFn
from prompt_tuning.data.vocabularies import resolved
from prompt_tuning.errors import DataError

TokensFn = Callable[[tf.Tensor, tf.Tensor, seqio.Vocabulary], tf.Tensor]

# T5 splits its one seed in six: two each for the mask, the inputs and the targets. Only the mask's are used here.
_NUM_SEEDS = 6
FIRST_SENTINEL = "<extra_id_0>"


def denoise(
    ds: tf.data.Dataset,
    *,
    vocabulary: seqio.Vocabulary,
    noise_mask_fn: NoiseMaskFn,
    inputs_fn: TokensFn,
    targets_fn: TokensFn | None,
) -> tf.data.Dataset:
    """Returns inputs and targets made of segments and random noise masks.

    Args:
      ds: {"targets": int32 [n]}.
      vocabulary: The vocabulary of the tokens.
      noise_mask_fn: Draws the mask.
      inputs_fn: Makes the inputs of (tokens [n], mask [n], vocabulary).
      targets_fn: Makes the targets; None keeps all tokens.

    Returns:
      {"inputs": int32 [.], "targets": int32 [.]}.

    Source: `t5.data.preprocessors.denoise`; takes one seed, as there.
    """

    def split(example: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = example["targets"]
        seeds = tf.unstack(tf.random.split(seed, _NUM_SEEDS))
        mask = noise_mask_fn(tf.size(tokens), seeds[:2])
        targets = tokens if targets_fn is None else targets_fn(tokens, mask, vocabulary)
        return {"inputs": inputs_fn(tokens, mask, vocabulary), "targets": targets}

    return token_chunks.seeded_map(ds, split)


def sentinel_id(vocabulary: seqio.Vocabulary) -> int:
    """Returns the id of the first sentinel, `<extra_id_0>`: the last one of the vocabulary.

    Args:
      vocabulary: The vocabulary of the tokens. Bytes without extra ids use their last values, as ByT5 does.

    Raises:
      DataError: A SentencePiece model without sentinels, whose last ids are ordinary pieces.
    """
    last = vocabulary.vocab_size - 1
    meant = resolved(vocabulary)
    if isinstance(meant, seqio.SentencePieceVocabulary):
        piece = meant.tokenizer.IdToPiece(last)
        if piece.removeprefix("▁") != FIRST_SENTINEL:
            raise DataError(
                "The vocabulary has no sentinels, which mark the places of missing spans",
                got=piece,
                expected=f"{FIRST_SENTINEL!r} as its last piece",
                fix="set the vocabulary's `extra_ids` to 100",
            )
    return last


def noise_span_to_unique_sentinel(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the kept tokens, with a sentinel of its own (descending ids) for each span of noise.

    Args:
      tokens: int32 [n].
      mask: bool [n], True for noise.
      vocabulary: Names the sentinels.
    """
    starts = _starts(mask)
    sentinels = sentinel_id(vocabulary) + 1 - tf.cumsum(tf.cast(starts, tokens.dtype))
    return tf.boolean_mask(tf.where(starts, sentinels, tokens), starts | tf.logical_not(mask))


def nonnoise_span_to_unique_sentinel(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the noise, with a sentinel of its own for each span of kept tokens; arguments as above."""
    return noise_span_to_unique_sentinel(tokens, tf.logical_not(mask), vocabulary)


def noise_span_to_sentinel(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the kept tokens, with the first sentinel for every span of noise; arguments as above."""
    starts = _starts(mask)
    sentinel = tf.cast(sentinel_id(vocabulary), tokens.dtype)
    return tf.boolean_mask(tf.where(starts, sentinel, tokens), starts | tf.logical_not(mask))


def nonnoise_span_to_sentinel(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the noise, with the first sentinel for every span of kept tokens; arguments as above."""
    return noise_span_to_sentinel(tokens, tf.logical_not(mask), vocabulary)


def noise_token_to_sentinel(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns all tokens, each one of noise replaced by the first sentinel; arguments as above."""
    return tf.where(mask, tf.cast(sentinel_id(vocabulary), tokens.dtype), tokens)


def drop_noise_tokens(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the kept tokens; arguments as above."""
    del vocabulary
    return tf.boolean_mask(tokens, tf.logical_not(mask))


def drop_nonnoise_tokens(
    tokens: tf.Tensor, mask: tf.Tensor, vocabulary: seqio.Vocabulary
) -> tf.Tensor:
    """Returns the noise; arguments as above."""
    del vocabulary
    return tf.boolean_mask(tokens, mask)


def _starts(mask: tf.Tensor) -> tf.Tensor:
    """Returns where spans of True begin, bool [n]."""
    return mask & tf.logical_not(tf.concat([[False], mask[:-1]], axis=0))
