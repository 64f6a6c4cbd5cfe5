"""Raw examples to text."""

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import seqio
import tensorflow as tf

# What T5 writes where the label is withheld (label -1, as in the public test splits).
UNLABELED = "<unk>"
# What T0 writes in its place where a template has no target.
NO_LABEL = "<NO LABEL>"
WITHHELD = (UNLABELED, NO_LABEL)

TextPreprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]

# Preprocessors that make one example of each one, by itself and without drawing: they may run in any order of examples.
_OF_EACH_EXAMPLE: weakref.WeakSet[Callable[..., tf.data.Dataset]] = weakref.WeakSet(
    [
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
        seqio.preprocessors.append_eos_after_trim,
    ]
)
Rows = Iterator[Mapping[str, Any]]
# Preprocessor -> what it does, over examples at hand.
_OVER_ROWS: weakref.WeakKeyDictionary[Callable[..., tf.data.Dataset], Callable[[Rows], Rows]] = (
    weakref.WeakKeyDictionary()
)
_Preprocessor = TypeVar("_Preprocessor", bound=Callable[..., tf.data.Dataset])


def of_each_example(preprocessor: _Preprocessor) -> _Preprocessor:
    """Declares that a preprocessor makes one example of each one, by itself and without drawing at random.

    A run that goes on may then skip examples before the preprocessor has made them (`stream.endless`).

    Args:
      preprocessor: A function over datasets, as SeqIO calls it.

    Returns:
      The preprocessor.
    """
    _OF_EACH_EXAMPLE.add(preprocessor)
    return preprocessor


def is_of_each_example(preprocessor: Callable[..., Any]) -> bool:
    """Returns whether `of_each_example` has declared a preprocessor, or SeqIO's own is known to be such a one."""
    while isinstance(preprocessor, functools.partial):
        preprocessor = preprocessor.func
    try:
        return preprocessor in _OF_EACH_EXAMPLE
    # Objects that cannot be hashed, or not be referred to weakly, were never declared.
    except TypeError:
        return False


def over_rows(preprocessor: _Preprocessor, function: Callable[[Rows], Rows]) -> _Preprocessor:
    """Declares what a preprocessor does where there is no dataset but examples at hand (`samples`).

    Args:
      preprocessor: A function over datasets, as SeqIO calls it.
      function: The same over iterators of examples; their values are tensors, or what TensorFlow makes tensors of.

    Returns:
      The preprocessor.
    """
    _OVER_ROWS[preprocessor] = function
    return preprocessor


def rows_function(preprocessor: Callable[..., Any]) -> Callable[[Rows], Rows] | None:
    """Returns the function that `over_rows` has declared of a preprocessor, if any."""
    try:
        return _OVER_ROWS.get(preprocessor)
    # As of `is_of_each_example`.
    except TypeError:
        return None


def mapped(to_example: Callable[[Any], Mapping[str, Any]]) -> TextPreprocessor:
    """Returns the preprocessor that makes each example of one, by `to_example`."""

    def preprocess(ds: tf.data.Dataset) -> tf.data.Dataset:
        return ds.map(to_example, num_parallel_calls=tf.data.AUTOTUNE)

    return over_rows(of_each_example(preprocess), lambda rows: map(to_example, rows))


def classification_text(
    *,
    fields: Sequence[str] | Mapping[str, str],
    verbalizers: Sequence[str],
    prefix: str = "",
    has_markup: bool = False,
) -> TextPreprocessor:
    """Returns a preprocessor that writes a classification example as T5 does.

    The input is `{prefix} {field}: {value} {field}: {value} …` with the values untouched; the target is the verbalizer
    of the label.

    Args:
      fields: Text columns of the raw example, written in alphabetical order; a dict from the name that is written to
        the column keeps its own order.
      verbalizers: Text of each class, by class index.
      prefix: First word of the input (T5: the task's name); empty for the form used in prompt tuning.
      has_markup: Whether the text has HTML's line breaks, which become spaces, and bold type, which is dropped.

    Returns:
      A function over datasets of {field: string, "label": int64, "idx": int32} that returns datasets of
      {"inputs": string, "targets": string, "idx": int32}; the parts of a nested "idx" become `idx/{part}`.

    Source: T5's GLUE text format (Raffel et al. 2020, appendix D); without the prefix, Lester et al. 2021.
    """
    columns = (
        dict(fields) if isinstance(fields, Mapping) else {name: name for name in sorted(fields)}
    )

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = _written(example, columns, prefix)
        if has_markup:
            text = tf.strings.regex_replace(text, "<br>", " ")
            text = tf.strings.regex_replace(text, "</?b>", "")
        # Label -1 picks the entry behind the last class.
        names = tf.constant([*verbalizers, UNLABELED])
        label = example["label"]
        index = tf.where(label < 0, tf.constant(len(verbalizers), label.dtype), label)
        return {"inputs": text, "targets": tf.gather(names, index), **index_features(example)}

    return mapped(to_text)


def similarity_text(*, fields: Sequence[str], prefix: str = "") -> TextPreprocessor:
    """Returns a preprocessor whose target is a number in steps of 0.2, such as `3.8` (STS-B).

    Halves round to even: 3.3 becomes `3.2`, 2.3 becomes `2.4`. A withheld label is `-1.0`.

    Args:
      fields: Text columns, in the order in which they are written.
      prefix: First word of the input; empty for the form used in prompt tuning.

    Returns:
      A function over datasets of {field: string, "label": float32, "idx": int32} that returns datasets of
      {"inputs": string, "targets": string, "idx": int32}.

    Source: T5 (Raffel et al. 2020, section 2.4).
    """

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        number = tf.round(example["label"] * 5) / 5
        return {
            "inputs": _written(example, {field: field for field in fields}, prefix),
            "targets": tf.as_string(number, precision=1),
            "idx": example["idx"],
        }

    return mapped(to_text)


def _written(
    example: Mapping[str, tf.Tensor], columns: Mapping[str, str], prefix: str
) -> tf.Tensor:
    """Returns `{prefix} {name}: {value} {name}: {value} …`."""
    words: list[Any] = [prefix] if prefix else []
    for name, column in columns.items():
        words += [f"{name}:", example[column]]
    return tf.strings.join(words, separator=" ")


def index_features(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Returns what numbers an example: {"idx": int32}, or `idx/{part}` of a nested index."""
    idx = example["idx"]
    if isinstance(idx, Mapping):
        return {f"idx/{part}": value for part, value in idx.items()}
    return {"idx": idx}


def prepend_id(ds: tf.data.Dataset, feature: str, first: int) -> tf.data.Dataset:
    """Returns examples of which one feature begins with an id.

    Args:
      ds: {feature: int32 [n], …}.
      feature: The feature.
      first: The id.

    Returns:
      The same with {feature: int32 [n + 1]}.
    """

    def prepend(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        ids = example[feature]
        return {**example, feature: tf.concat([tf.constant([first], ids.dtype), ids], axis=0)}

    return ds.map(prepend, num_parallel_calls=tf.data.AUTOTUNE)
