"""Raw examples to text."""

from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

# What T5 writes where the label is withheld (label -1, as in the public test splits).
UNLABELED = "<unk>"

TextPreprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]


def classification_text(
    *, fields: Sequence[str], verbalizers: Sequence[str], prefix: str = ""
) -> TextPreprocessor:
    """Returns a preprocessor that writes a classification example as T5 does.

    The input is `{prefix} {field}: {value} {field}: {value} …` with the fields in alphabetical order and the values
    untouched; the target is the verbalizer of the label.

    Args:
      fields: Text columns of the raw example.
      verbalizers: Text of each class, by class index.
      prefix: First word of the input (T5: the task's name); empty for the form used in prompt tuning.

    Returns:
      A function over datasets of {field: string, "label": int64, "idx": int32} that returns datasets of
      {"inputs": string, "targets": string, "idx": int32}.

    Source: T5's GLUE text format (Raffel et al. 2020, appendix D); without the prefix, Lester et al. 2021.
    """

    def join(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
        words = [prefix] if prefix else []
        for field in sorted(fields):
            words += [f"{field}:", example[field]]
        return tf.strings.join(words, separator=" ")

    return _classification(join, verbalizers)


def phrased_text(*, field: str, verbalizers: Sequence[str], phrase: str) -> TextPreprocessor:
    """Returns a preprocessor whose input is `{phrase} {value of field}` and whose target is the verbalizer.

    Args:
      field: The text column.
      verbalizers: Text of each class, by class index.
      phrase: Words before the text.
    """
    return _classification(
        lambda example: tf.strings.join([phrase, example[field]], separator=" "), verbalizers
    )


def _classification(
    join: Callable[[Mapping[str, tf.Tensor]], tf.Tensor], verbalizers: Sequence[str]
) -> TextPreprocessor:
    """Returns the preprocessor with inputs by `join` and targets by label."""

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # Label -1 picks the entry behind the last class.
        names = tf.constant([*verbalizers, UNLABELED])
        label = example["label"]
        index = tf.where(label < 0, tf.constant(len(verbalizers), label.dtype), label)
        return {"inputs": join(example), "targets": tf.gather(names, index), "idx": example["idx"]}

    return lambda ds: ds.map(to_text, num_parallel_calls=tf.data.AUTOTUNE)
