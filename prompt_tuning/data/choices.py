"""Examples with all their answer choices, for losses that compare them (`training/choice_losses.py`).

The choices of an example are its targets: the right one first, the others behind it in their order, each with its EOS.
So a row of ids says by itself where each choice ends and which one is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import verbalizers
from prompt_tuning.data.preprocessors import mapped
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.errors import DataError

FIELD = "answer_choices"
_TEXT = "targets_pretokenized"


def with_choices(task: seqio.Task) -> seqio.Task:
    """Returns a task with the choices of each example as its targets.

    The choices are those of the example's field `answer_choices`, or the labels of the task where its examples have no
    such field. Inputs end with EOS, also where they are cut and where the task's own have none, as T-Few's do. Targets
    without a right choice among them are empty.

    Args:
      task: A task that keeps the text of its targets (`targets_pretokenized`), as SeqIO's tokenizing does.
    """
    inputs, targets = task.output_features["inputs"], task.output_features["targets"]
    labels = verbalizers.get_verbalizers(task.name)

    def to_choices(ds: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None) -> Any:
        longest = (sequence_length or {}).get("inputs")

        def convert(example: Mapping[str, Any]) -> dict[str, Any]:
            choices = _choices_of(example, labels, task.name)
            ids = targets.vocabulary.encode_tf(choices)
            is_right = tf.equal(choices, tf.strings.strip(example[_TEXT]))
            # The first of equal choices.
            right = tf.argmax(tf.cast(is_right, tf.int32))
            order = tf.concat([[right], tf.where(tf.range(tf.size(is_right, tf.int64)) != right)[:, 0]], 0)
            ended = tf.concat([tf.gather(ids, order), tf.fill([tf.size(order), 1], EOS_ID)], 1)
            row = tf.cast(ended.flat_values, tf.int32)
            return {
                **example,
                "inputs": _ended(example["inputs"], longest),
                "targets": tf.where(tf.reduce_any(is_right), row, row[:0]),
            }

        return mapped(convert)(ds)

    return task.replace(
        preprocessors=[*task.preprocessors, to_choices],
        output_features={"inputs": inputs, "targets": targets},
        metric_fns=[],
    )


def _choices_of(example: Mapping[str, Any], labels: Sequence[str] | None, name: str) -> Any:
    """The text of the choices, string [C]."""
    if FIELD in example:
        return tf.strings.strip(example[FIELD])
    if labels is not None:
        return tf.constant([label.strip() for label in labels])
    raise DataError(
        f"The examples of task {name!r} have no choices, which choice_losses compare",
        got=f"the fields {', '.join(sorted(example))}",
        expected=f"a field {FIELD!r}, or a task with labels",
        fix="train on templates with answer_choices, or leave models.EncoderDecoderModel.choice_losses out",
    )
