"""Which tokens of a segment are noise: single ones, spans, or a prefix. The same seeds give T5's masks, bit for bit."""

from collections.abc import Callable, Sequence

import seqio
import tensorflow as tf

Seeds = Sequence[tf.Tensor]
NoiseMaskFn = Callable[[tf.Tensor, Seeds], tf.Tensor]


def iid_noise_mask(noise_density: float) -> NoiseMaskFn:
    """Returns a mask that makes each token noise by itself, with probability `noise_density`.

    Args:
      noise_density: Probability of noise, 0 to 1.

    Returns:
      A function (length int32 [], two seeds [2]) -> mask bool [length].

    Source: `t5.data.preprocessors.iid_noise_mask`.
    """

    def mask(length: tf.Tensor, seeds: Seeds) -> tf.Tensor:
        return tf.random.stateless_uniform(tf.reshape(length, [1]), seeds[0]) < noise_density

    return mask


def random_spans_noise_mask(
    noise_density: float, mean_span_length: float, *, random_roll: bool = False
) -> NoiseMaskFn:
    """Returns a mask of spans: kept and noise spans alternate, a kept one first.

    The number of noise tokens and of spans is fixed by the length; how the tokens fall into spans is random.

    Args:
      noise_density: Share of noise tokens, 0 to 1.
      mean_span_length: Mean length of a noise span, in tokens.
      random_roll: Whether to rotate the mask by a random number of tokens.

    Returns:
      A function (length int32 [], two seeds [2]) -> mask bool [length]. A segment of one token has no noise.

    Source: Raffel et al. 2020, section 3.1.4; `t5.data.preprocessors.random_spans_noise_mask`.
    """

    def mask(length: tf.Tensor, seeds: Seeds) -> tf.Tensor:
        # At least one noise token, one kept token and one span, whatever the length.
        padded = tf.maximum(length, 2)
        num_noise = _rounded(tf.cast(padded, tf.float32) * noise_density)
        num_noise = tf.clip_by_value(num_noise, 1, padded - 1)
        num_spans = _rounded(tf.cast(num_noise, tf.float32) / mean_span_length)
        num_spans = tf.maximum(num_spans, 1)
        noise_lengths = _random_lengths(num_noise, num_spans, seeds[0])
        kept_lengths = _random_lengths(padded - num_noise, num_spans, seeds[1])
        lengths = tf.reshape(tf.stack([kept_lengths, noise_lengths], axis=1), [-1])
        is_noise = tf.repeat(tf.range(2 * num_spans) % 2 == 1, lengths)[:length]
        if random_roll:
            seed = tf.stack([seeds[0][0] + seeds[1][1], seeds[0][1] - seeds[1][0]])
            offset = tf.random.stateless_uniform([1], seed, 0, padded, dtype=tf.int32)
            is_noise = tf.roll(is_noise, shift=offset[0], axis=0)
        return is_noise

    return mask


def random_prefix_noise_mask() -> NoiseMaskFn:
    """Returns a mask whose noise is a prefix, its length uniform in [1, length - 1].

    Returns:
      A function (length int32 [], two seeds [2]) -> mask bool [length]. A segment of one token has no prefix.

    Source: `t5.data.preprocessors.random_prefix_noise_mask` at its only density, 0.5.
    """

    def mask(length: tf.Tensor, seeds: Seeds) -> tf.Tensor:
        longest = length - 1
        num_prefix = tf.random.stateless_uniform(
            [], seeds[0], tf.minimum(longest, 1), longest + 1, dtype=tf.int32
        )
        return tf.range(length) < num_prefix

    return mask


def _rounded(x: tf.Tensor) -> tf.Tensor:
    """Returns the nearest whole number, half to even, as int32."""
    return tf.cast(tf.round(x), tf.int32)


def _random_lengths(num_tokens: tf.Tensor, num_spans: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns the lengths [num_spans] of a random division of `num_tokens` into spans that are not empty."""
    # Behind each token but the last there may be a boundary; `num_spans - 1` of them are drawn.
    is_boundary = tf.cast(tf.range(num_tokens - 1) < num_spans - 1, tf.int32)
    starts_span = seqio.utils.stateless_shuffle(is_boundary, seed)
    span_of_token = tf.concat([[0], tf.cumsum(starts_span)], axis=0)
    return tf.math.bincount(span_of_token, minlength=num_spans, maxlength=num_spans)
