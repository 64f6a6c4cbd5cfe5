"""Token streams cut to a model's length: a chunk of each document, documents joined, and segments of one length.

All functions take and return datasets of {"targets": int32 [n]}. Those that T5 seeds take the same number of SeqIO's
seeds, used or not, so that a pipeline draws the same numbers as T5's.
"""

from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf

Example = Mapping[str, tf.Tensor]

# T5 keeps one chunk of this many tokens of a longer document.
MAX_DOCUMENT_TOKENS = 65_536
# Documents that T5 joins before cutting them, to pad less.
DOCUMENTS_JOINED = 128


def seeded_map(
    ds: tf.data.Dataset, fn: Callable[[Any, tf.Tensor], Mapping[str, tf.Tensor]]
) -> tf.data.Dataset:
    """Returns `ds` with `fn` applied to each example and a seed int64 [2]; takes one of SeqIO's seeds.

    Args:
      ds: Any dataset.
      fn: A function of (example, seed), with these names.
    """
    mapped: Any = seqio.map_over_dataset(fn, num_seeds=1)
    return mapped(ds)


def select_random_chunk(
    ds: tf.data.Dataset, *, max_tokens: int = MAX_DOCUMENT_TOKENS
) -> tf.data.Dataset:
    """Returns one chunk of each document; chunks start at multiples of `max_tokens`, each equally likely.

    Args:
      ds: {"targets": int32 [n]}; documents without tokens are dropped.
      max_tokens: Longest chunk, in tokens.

    Returns:
      {"targets": int32 [min(n, max_tokens)]}, the last chunk of a document shorter.

    Source: `t5.data.preprocessors.select_random_chunk`; takes one seed, as there.
    """

    def cut(example: Example, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        tokens = example["targets"]
        num_chunks = -(-tf.size(tokens) // max_tokens)
        chunk = tf.random.stateless_uniform([], seed, maxval=num_chunks, dtype=tf.int32)
        return {"targets": tokens[chunk * max_tokens :][:max_tokens]}

    return seeded_map(_drop_empty(ds), cut)


def join_documents(
    ds: tf.data.Dataset, *, num_documents: int = DOCUMENTS_JOINED
) -> tf.data.Dataset:
    """Returns documents joined end to end, `num_documents` at a time.

    Args:
      ds: {"targets": int32 [n]}.
      num_documents: Documents in each joined one; the last holds what is left.

    Returns:
      {"targets": int32 [sum of n]} without padding (id 0).

    Source: `t5.data.preprocessors.reduce_concat_tokens`; takes no seed.
    """

    def join(example: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        tokens = example["targets"].flat_values
        # T5 pads and strips what is 0 afterwards; a document that holds id 0 loses it there too.
        return {"targets": tf.boolean_mask(tokens, tokens != 0)}

    ds = ds.map(lambda example: {"targets": example["targets"]})
    return ds.ragged_batch(num_documents).map(join, num_parallel_calls=tf.data.AUTOTUNE)


def split_into_segments(ds: tf.data.Dataset, *, max_tokens: int) -> tf.data.Dataset:
    """Returns consecutive segments of `max_tokens` tokens; the last one of each document is shorter.

    Args:
      ds: {"targets": int32 [n]}; documents without tokens are dropped.
      max_tokens: Tokens in a segment.

    Returns:
      {"targets": int32 [at most max_tokens]}, several for each document, in its order.

    Source: `t5.data.preprocessors.split_tokens` with segments of one length; takes one seed, as there.
    """

    def keep(example: Example, seed: tf.Tensor) -> Example:
        del (
            seed
        )  # T5 draws it for segments of random lengths; what follows must get the same seeds.
        return example

    def segments(example: Example) -> tf.data.Dataset:
        tokens = example["targets"]
        starts = tf.data.Dataset.range(0, tf.size(tokens, tf.int64), max_tokens)
        return starts.map(lambda start: {"targets": tokens[start : start + max_tokens]})

    return seeded_map(_drop_empty(ds), keep).flat_map(segments)


def _drop_empty(ds: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the documents that have tokens."""
    return ds.filter(lambda example: tf.size(example["targets"]) > 0)
