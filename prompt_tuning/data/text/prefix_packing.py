"""Two segments in one row, each split into a prefix and its continuation: T5's packed prefix LM."""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from prompt_tuning.data.text import token_chunks
from prompt_tuning.errors import DataError


def pack_prefix_lm(ds: tf.data.Dataset, sequence_length: Mapping[str, int]) -> tf.data.Dataset:
    """Returns model features of pairs of segments, with one random split point a pair.

    A prefix of the first segment and one of the second fill the encoder together; what is left of each fills the
    decoder.

    Args:
      ds: {"targets": int32 [L]}, L the length of both features; what `full_lm` makes, padded. An odd last segment is
        left out.
      sequence_length: Tokens of `inputs` and `targets`, L each.

    Returns:
      {encoder_input_tokens, encoder_segment_ids, encoder_positions, decoder_input_tokens, decoder_target_tokens,
      decoder_segment_ids, decoder_positions, decoder_loss_weights} int32 [L]. Segments are numbered from 1; padding
      (id 0) has weight 0.

    Raises:
      DataError: The lengths differ.

    Source: `t5.data.preprocessors.pack_prefix_lm_encoder_decoder`; takes one seed, as there.
    """
    lengths = set(sequence_length.values())
    if len(lengths) != 1:
        raise DataError(
            "Packed prefix LM needs one length for inputs and targets",
            got=dict(sequence_length),
            expected="equal lengths",
            fix="set both in TASK_FEATURE_LENGTHS to the same number",
        )
    (length,) = lengths

    def pack(pair: Mapping[str, tf.Tensor], seed: tf.Tensor) -> dict[str, tf.Tensor]:
        first, second = pair["targets"][0], pair["targets"][1]
        split = tf.random.stateless_uniform([], seed, 1, length, dtype=tf.int32)
        rest = length - split
        targets = tf.concat([first[split:], second[rest:]], axis=0)
        decoder = _segments(rest, split, "decoder")
        return {
            "encoder_input_tokens": tf.concat([first[:split], second[:rest]], axis=0),
            "decoder_target_tokens": targets,
            "decoder_input_tokens": seqio.utils.make_autoregressive_inputs(
                targets, sequence_id=decoder["decoder_segment_ids"]
            ),
            "decoder_loss_weights": tf.cast(targets != 0, tf.int32),
            **_segments(split, rest, "encoder"),
            **decoder,
        }

    return token_chunks.seeded_map(ds.batch(2, drop_remainder=True), pack)


def _segments(first: tf.Tensor, second: tf.Tensor, prefix: str) -> dict[str, tf.Tensor]:
    """Returns segment ids and positions of two segments of the given numbers of tokens."""
    return {
        f"{prefix}_segment_ids": tf.repeat([1, 2], tf.stack([first, second])),
        f"{prefix}_positions": tf.concat([tf.range(first), tf.range(second)], axis=0),
    }
