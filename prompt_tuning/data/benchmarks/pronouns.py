"""Pronoun resolution as short answers: the Winograd schemas of SuperGLUE (WSC), and definite pronouns (DPR).

The model reads a sentence whose pronoun stands between asterisks, and writes whom or what the pronoun refers to.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from prompt_tuning.data.preprocessors import TextPreprocessor, mapped

_DETERMINERS = frozenset(
    "a an few her his each every many much my our some that the their these this those which whose your".split()
)
_MARK = "X"
# Two sentences whose index is not that of the pronoun: punctuation clings to it, or it is off. -> sentence with mark.
_SPECIAL = (
    (
        "The boy continued to whip the pony , and eventually the pony threw him over."
        ' John laughed out quite loud. "Good for him," he said. ',
        "The boy continued to whip the pony , and eventually the pony threw him over."
        ' John laughed out quite loud. "Good for X ," he said.',
    ),
    (
        "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the"
        " magic pebble in an iron safe . Some day they might want to use it , but really for now,"
        " what more could they wish for?",
        "When they had eventually calmed down a bit , and had gotten home, Mr. Farley put the"
        " magic pebble in an iron safe . Some day they might want to use X , but really for now,"
        " what more could they wish for?",
    ),
)


def winograd_text(*, prefix: str = "", only_correct: bool = False) -> TextPreprocessor:
    """Returns a preprocessor for WSC: the target is the candidate that the example names, right or wrong.

    Args:
      prefix: First word of the input (T5: `wsc:`); empty for the form used in prompt tuning.
      only_correct: Whether examples are left out whose candidate is not what the pronoun refers to, as is needed for
        training. As in T5, a withheld label (-1) stays in.

    Returns:
      A function over datasets of {"text", "span1_text", "span2_text": string, "span2_index": int32, "label": int64,
      "idx": int32} that returns datasets of {"inputs", "targets": string, "label": int64, "idx": int32}.

    Source: T5 (Raffel et al. 2020, section 2.4). A lone X of the sentence is replaced by the pronoun too, as there.
    """

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pronoun = tf.strings.join([" *", example["span2_text"], "* "])
        text = tf.strings.regex_replace(_with_mark(example), f" {_MARK} ", pronoun)
        return {
            "inputs": _prefixed(prefix, text),
            "targets": example["span1_text"],
            "label": example["label"],
            "idx": example["idx"],
        }

    write = mapped(to_text)
    if not only_correct:
        return write
    return lambda ds: write(ds.filter(lambda example: example["label"] != 0))


def _with_mark(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns the sentence with a mark in place of the pronoun."""
    text, index = example["text"], example["span2_index"]
    sentences = tf.constant([sentence for sentence, _ in _SPECIAL])
    marked = tf.constant([with_mark for _, with_mark in _SPECIAL])
    words = tf.strings.split(text, sep=" ")
    known = tf.equal(sentences, text)
    is_special = tf.reduce_any(known)
    is_inside = (index > 0) & (index < tf.size(words))
    position = tf.where(is_inside, index, 0)
    checks = [
        tf.debugging.Assert(
            is_special | (is_inside & (words[position] == example["span2_text"])),
            ["span2_index is not that of the pronoun", text, index, example["span2_text"]],
        )
    ]
    with tf.control_dependencies(checks):
        before = tf.strings.reduce_join(words[:position], separator=" ")
        after = tf.strings.reduce_join(words[position + 1 :], separator=" ")
    joined = tf.strings.join([before, _MARK, after], separator=" ")
    return tf.where(is_special, marked[tf.argmax(tf.cast(known, tf.int32))], joined)


def definite_pronoun_text(*, prefix: str = "") -> TextPreprocessor:
    """Returns a preprocessor for DPR: the target is the right one of two candidates.

    Of several occurrences of the pronoun the first that a space, period or comma follows is the one asked for.

    Args:
      prefix: First word of the input (T5: `wsc:`); empty for the form used in prompt tuning.

    Returns:
      A function over datasets of {"sentence", "pronoun": string, "candidates": string [2], "label": int64} that returns
      datasets of {"inputs", "targets": string}.

    Source: T5 (Raffel et al. 2020, section 2.4).
    """

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        pattern = tf.strings.join([" (", example["pronoun"], r")([ .,])"])
        text = tf.strings.regex_replace(
            example["sentence"], pattern, r" *\1*\2", replace_global=False
        )
        answer = tf.gather(example["candidates"], example["label"])
        return {"inputs": _prefixed(prefix, text), "targets": answer}

    return mapped(to_text)


def _prefixed(prefix: str, text: tf.Tensor) -> tf.Tensor:
    """Returns the text behind a first word, if there is one."""
    return tf.strings.join([prefix, text], separator=" ") if prefix else text


def names_referent(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> int:
    """Postprocesses WSC: whether the model named the example's candidate; the target is whether that is right.

    Case and determiners do not count, and "bunny" names "fuzzy bunny" and the other way round. Where only one of the
    two has an apostrophe ("Bob", "Bob's hat") they are different things.

    Args:
      text: What the model wrote, or the target.
      example: With `label`, and `targets_pretokenized`: the candidate.
      is_target: Whether `text` is the target.

    Returns:
      1 or 0; -1 for an answer of nothing but determiners, which is wrong whatever the label.

    Source: T5's post-processing of WSC.
    """
    example = example or {}
    if is_target:
        return int(example["label"])
    answer, candidate = _bare(text), _bare(example["targets_pretokenized"])
    if not answer:
        return -1
    if ("'" in answer) != ("'" in candidate):
        return 0
    said, meant = set(answer.split(" ")), set(candidate.split(" "))
    return int(said <= meant or meant <= said)


def _bare(text: str | bytes) -> str:
    """Returns text in small letters without determiners; spaces between words stay as they are."""
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    words = text.strip().lower().split(" ")
    return " ".join(word for word in words if word not in _DETERMINERS)
