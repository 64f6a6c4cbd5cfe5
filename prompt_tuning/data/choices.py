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
from prompt_tuning.data.preprocessors import of_each_example
from prompt_tuning.data.vocabularies import EOS_ID, end_of
from prompt_tuning.errors import DataError

FIELD = "answer_choices"
_ASKED, _ANSWER = "inputs_pretokenized", "targets_pretokenized"
# Characters of an example's input that a message shows.
_SHOWN = 60


def with_choices(task: seqio.Task) -> seqio.Task:
    """Returns a task with the choices of each example as its targets.

    The choices are those of the example's field `answer_choices`, or the labels of the task where its examples have no
    such field. Inputs end with EOS, also where they are cut and where the task's own have none, as T-Few's do. Targets
    are empty where the right choice is not among the choices.

    Args:
      task: A task that keeps the text of its targets (`targets_pretokenized`), as SeqIO's tokenizing does.
    """
    features = task.output_features
    vocabulary = features["targets"].vocabulary
    input_end, end = end_of(features["inputs"].vocabulary), end_of(vocabulary)
    labels = verbalizers.get_verbalizers(task.name)

    @of_each_example
    def to_choices(ds: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None) -> Any:
        longest = (sequence_length or {}).get("inputs")

        def convert(example: Mapping[str, Any]) -> dict[str, Any]:
            choices = _choices(example, labels, task.name)
            is_right = tf.equal(choices, tf.strings.strip(example[_ANSWER]))
            # Of equal choices the first is right.
            right = tf.argmax(tf.cast(is_right, tf.int32))
            others = tf.where(tf.range(tf.size(is_right, tf.int64)) != right)[:, 0]
            ids = vocabulary.encode_tf(tf.gather(choices, tf.concat([[right], others], 0)))
            row = tf.concat([ids, tf.fill([tf.size(choices), 1], end)], axis=1).flat_values
            return {
                **example,
                FIELD: choices,
                "inputs": _ended(example["inputs"], longest, input_end),
                "targets": row[: tf.size(row) * tf.cast(tf.reduce_any(is_right), tf.int32)],
            }

        return ds.map(convert, num_parallel_calls=tf.data.AUTOTUNE)

    return task.replace(preprocessors=[*task.preprocessors, to_choices], metric_fns=[])


def model_features(batch: Mapping[str, np.ndarray], end: int = EOS_ID) -> dict[str, np.ndarray]:
    """Returns a batch whose decoder features keep the choices of each row apart.

    Args:
      batch: Model features, `decoder_target_tokens` [B, T] with the choices of a row behind each other. Rows of zeros,
        which fill up a batch, stay.
      end: Id that ends a choice.

    Returns:
      The same with `decoder_segment_ids` [B, T] int32: 1 for the right choice, 2, 3, … for the others, 0 for padding;
      `decoder_input_tokens` that begin anew with each choice; `decoder_loss_weights` of the right choice alone.

    Raises:
      DataError: The choices of a row are cut, are fewer than two, or have no right one among them.
    """
    targets = batch["decoder_target_tokens"]
    is_end = targets == end
    numbers = 1 + np.cumsum(is_end, axis=1) - is_end
    segments = np.where(targets > 0, numbers, 0).astype(np.int32)
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    is_example = np.any(batch["encoder_input_tokens"] > 0, axis=1)
    whole = is_end.sum(axis=1)
    for is_wrong, got in (
        (segments.max(axis=1, initial=0) > whole, "choices that are cut"),
        (is_example & (whole == 0), "an answer that is none of the choices"),
        (is_example & (whole == 1), "one choice"),
    ):
        if is_wrong.any():
            raise DataError(
                "An example cannot be trained on with its choices",
                got=got,
                expected=f"two choices or more in {FIELD}, the right one among them, all within"
                f" TASK_FEATURE_LENGTHS['targets'] = {targets.shape[1]} tokens",
                fix="correct the data, or raise TASK_FEATURE_LENGTHS['targets']",
            )
    return {
        **batch,
        "decoder_input_tokens": np.where(shifted == end, 0, shifted),
        "decoder_loss_weights": (segments == 1).astype(batch["decoder_loss_weights"].dtype),
        "decoder_segment_ids": segments,
    }


def check_choices(
    example: Mapping[str, Any], number: int, task: seqio.Task, split: str, length: int
) -> None:
    """Checks that the choices of an example can be compared.

    Args:
      example: Of `with_choices`, whole.
      number: Which one it is.
      task: Its task.
      split: Its split.
      length: TASK_FEATURE_LENGTHS['targets'], tokens.

    Raises:
      DataError: It has fewer than two, none of them is its answer, or they do not fit into a row.
    """
    choices = [text.decode("utf-8", "replace") for text in example[FIELD].tolist()]
    answer = example[_ANSWER].decode("utf-8", "replace").strip()
    asked = example.get(_ASKED, b"").decode("utf-8", "replace")[:_SHOWN]
    has_files = getattr(task.source, "has_files", False)
    files = ", ".join(map(str, task.source.list_shards(split))) if has_files else ""
    where = f"Example {number} of {split} of {task.name!r}{files and f' from {files}'} ({asked!r})"
    if len(choices) < 2:
        raise DataError(
            f"{where} has nothing to choose from",
            got=f"{FIELD} = {choices}",
            expected="two choices or more",
            fix=f"correct the {FIELD} of the template or of the example",
        )
    if answer not in choices:
        raise DataError(
            f"{where} has an answer that is none of its choices",
            got=answer,
            expected=f"one of its {FIELD}, {', '.join(map(repr, choices))}",
            fix=f"correct the label of the example, or the {FIELD} of its template",
        )
    num_tokens = len(example["targets"])
    if num_tokens > length:
        raise DataError(
            f"{where} has choices that do not fit into a row together",
            got=f"{num_tokens} tokens",
            expected=f"at most TASK_FEATURE_LENGTHS['targets'] = {length}",
            fix=f"set TASK_FEATURE_LENGTHS['targets'] to {num_tokens} or more",
        )


def _choices(example: Mapping[str, Any], labels: Sequence[str] | None, name: str) -> Any:
    """The text of the choices, string [C]."""
    if FIELD in example:
        return tf.strings.strip(example[FIELD])
    if labels:
        return tf.strings.strip(tf.constant(labels))
    raise DataError(
        f"The examples of task {name!r} have no choices, which choice_losses compares",
        got=f"the fields {', '.join(sorted(example))}",
        expected=f"a field {FIELD!r}, or a task with labels",
        fix="name a task with choices, or bind models.EncoderDecoderModel.choice_losses = None",
    )


def _ended(ids: Any, longest: int | None, end: int) -> Any:
    """Ids [n] with EOS at their end, at most `longest` of them."""
    has_end = tf.reduce_any(ids[-1:] == end)
    ids = ids[: tf.size(ids) - tf.cast(has_end, tf.int32)]
    return tf.concat([ids if longest is None else ids[: longest - 1], [end]], axis=0)
