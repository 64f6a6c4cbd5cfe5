"""What a language model is asked for: span corruption, prefix LM and their relatives, on tokenized documents.

Each objective turns {"targets": int32 [n]}, one document an example, into inputs and targets without EOS (`full_lm`
excepted), and draws SeqIO's seeds as T5 does: the same seed gives T5's examples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data.text import denoising, token_chunks
from prompt_tuning.data.text.noise_masks import (
    NoiseMaskFn,
    iid_noise_mask,
    random_prefix_noise_mask,
    random_spans_noise_mask,
)
from prompt_tuning.errors import DataError

Features = Mapping[str, seqio.utils.Feature]
Lengths = Mapping[str, int] | None
Objective = Callable[..., tf.data.Dataset]

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0
# What makes the inputs, and what the targets.
_SPANS_APART = (
    denoising.noise_span_to_unique_sentinel,
    denoising.nonnoise_span_to_unique_sentinel,
)
_PREFIX_APART = (denoising.drop_nonnoise_tokens, denoising.drop_noise_tokens)


def span_corruption(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns segments with spans replaced by sentinels, and the spans as targets, as T5 1.1 is pre-trained.

    Documents are joined 128 at a time, so that segments fill the inputs.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `inputs` and `targets`, EOS included.
      output_features: The task's features.

    Returns:
      {"inputs", "targets"}: `a b <extra_id_0> c` and `<extra_id_0> x y z`.

    Raises:
      DataError: The targets are shorter than the spans of one segment.

    Source: Raffel et al. 2020, section 3.1.4; `t5.data.preprocessors.span_corruption` at its defaults (15 % noise,
      mean span of 3 tokens).
    """
    inputs_length = _length(sequence_length, "inputs")
    num_tokens, targets_length = span_corruption_lengths(
        inputs_length, NOISE_DENSITY, MEAN_SPAN_LENGTH
    )
    if _length(sequence_length, "targets") < targets_length:
        raise DataError(
            f"The targets are too short for span corruption with inputs of {inputs_length} tokens",
            got=_length(sequence_length, "targets"),
            expected=f"at least {targets_length} tokens",
            fix=f"set TASK_FEATURE_LENGTHS['targets'] to {targets_length}",
        )
    mask_fn = random_spans_noise_mask(NOISE_DENSITY, MEAN_SPAN_LENGTH)
    ds = token_chunks.join_documents(token_chunks.select_random_chunk(ds))
    return _denoise(ds, num_tokens, output_features, mask_fn, *_SPANS_APART)


def iid_denoising(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns segments whose noise tokens were drawn one by one; otherwise as `span_corruption`.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `inputs`, EOS included.
      output_features: The task's features.

    Source: `t5.data.preprocessors.iid_denoising`.
    """
    num_tokens = _segment_length(sequence_length, output_features)
    ds = token_chunks.join_documents(token_chunks.select_random_chunk(ds))
    return _denoise(ds, num_tokens, output_features, iid_noise_mask(NOISE_DENSITY), *_SPANS_APART)


def prefix_lm(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns segments split at a random place into inputs and targets: LM adaptation's objective.

    Documents are not joined, and there are no sentinels. The split leaves at least one token on each side; a segment
    of one token has empty inputs.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `inputs`, EOS included; targets can be as long.
      output_features: The task's features.

    Source: Lester et al. 2021, section 3.2; `t5.data.preprocessors.prefix_lm`.
    """
    num_tokens = _segment_length(sequence_length, output_features)
    ds = token_chunks.select_random_chunk(ds)
    return _denoise(ds, num_tokens, output_features, random_prefix_noise_mask(), *_PREFIX_APART)


def full_lm(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns targets alone: documents, each ended by EOS, joined and cut to the length of the targets.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `targets`.
      output_features: The task's features.

    Source: `t5.data.preprocessors.full_lm`.
    """
    ds = seqio.preprocessors.append_eos(token_chunks.select_random_chunk(ds), output_features)
    return token_chunks.split_into_segments(
        token_chunks.join_documents(ds), max_tokens=_length(sequence_length, "targets")
    )


def text_infilling(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns segments with spans replaced by sentinels, and the whole segments as targets.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `inputs`, EOS included.
      output_features: The task's features.

    Source: Lewis et al. 2019; google-research/prompt-tuning, `text_infilling`.
    """
    num_tokens = _segment_length(sequence_length, output_features)
    mask_fn = random_spans_noise_mask(NOISE_DENSITY, MEAN_SPAN_LENGTH)
    ds = token_chunks.select_random_chunk(ds)
    return _denoise(ds, num_tokens, output_features, mask_fn, _SPANS_APART[0])


def token_deletion(
    ds: tf.data.Dataset, sequence_length: Lengths, output_features: Features
) -> tf.data.Dataset:
    """Returns segments without their noise tokens, and the whole segments as targets.

    Args:
      ds: {"targets": int32 [n]}.
      sequence_length: Tokens of `inputs`, EOS included.
      output_features: The task's features.

    Source: Lewis et al. 2019; google-research/prompt-tuning, `token_deletion`.
    """
    num_tokens = _segment_length(sequence_length, output_features)
    mask_fn = iid_noise_mask(NOISE_DENSITY)
    ds = token_chunks.select_random_chunk(ds)
    return _denoise(ds, num_tokens, output_features, mask_fn, denoising.drop_noise_tokens)


def span_corruption_lengths(
    inputs_length: int, noise_density: float, mean_span_length: float
) -> tuple[int, int]:
    """Returns how many tokens a segment may have so that its inputs fit, and how long its targets are then.

    Args:
      inputs_length: Tokens of `inputs`: kept ones, a sentinel for each span, and EOS.
      noise_density: Share of noise tokens.
      mean_span_length: Mean length of a span, in tokens.

    Returns:
      (tokens of a segment, tokens of `targets` with sentinels and EOS).

    Source: `t5.data.preprocessors.random_spans_helper`.
    """

    def lengths(num_tokens: int) -> tuple[int, int]:
        num_noise = round(num_tokens * noise_density)
        num_spans = round(num_noise / mean_span_length)
        return num_tokens - num_noise + num_spans + 1, num_noise + num_spans + 1

    num_tokens = inputs_length
    while lengths(num_tokens + 1)[0] <= inputs_length:
        num_tokens += 1
    targets_length = lengths(num_tokens)[1]
    # At this density T5 keeps the targets as long as the inputs, which are likelier to be a round number.
    if noise_density == 0.5 and targets_length > inputs_length:
        return num_tokens - 1, targets_length - 1
    return num_tokens, targets_length


def _denoise(
    ds: tf.data.Dataset,
    num_tokens: int,
    output_features: Features,
    noise_mask_fn: NoiseMaskFn,
    inputs_fn: denoising.TokensFn,
    targets_fn: denoising.TokensFn | None = None,
) -> tf.data.Dataset:
    """Returns inputs and targets of segments of `num_tokens`; without `targets_fn` these are the whole segments."""
    return denoising.denoise(
        token_chunks.split_into_segments(ds, max_tokens=num_tokens),
        vocabulary=output_features["targets"].vocabulary,
        noise_mask_fn=noise_mask_fn,
        inputs_fn=inputs_fn,
        targets_fn=targets_fn,
    )


def _segment_length(sequence_length: Lengths, output_features: Features) -> int:
    """Returns the length of segments that fit `inputs` with its EOS, in tokens."""
    return _length(sequence_length, "inputs") - int(output_features["inputs"].add_eos)


def _length(sequence_length: Any, feature: str) -> int:
    """Returns the length of a feature, which these objectives cannot do without."""
    length = (sequence_length or {}).get(feature)
    if length is None or length < 2:
        raise DataError(
            f"A language-modelling task needs the length of {feature!r}",
            got=length,
            expected="a number of at least 2 tokens",
            fix=f"set TASK_FEATURE_LENGTHS[{feature!r}]",
        )
    return length
