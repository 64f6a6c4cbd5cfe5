"""Questions about a text whose answers are free text: SQuAD, MRQA and ReCoRD."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from prompt_tuning.data.preprocessors import UNLABELED, TextPreprocessor, mapped


def squad_text(*, has_context: bool = True) -> TextPreprocessor:
    """Returns a preprocessor for SQuAD; spaces surround punctuation, and the target is the first answer.

    Args:
      has_context: Whether the text is shown, or the question alone.

    Returns:
      A function over datasets of {"id", "context", "question": string, "answers": {"text": string [n]}} that returns
      datasets of {"inputs", "targets", "id", "context", "question": string, "answers": string [n]}.

    Source: T5 (Raffel et al. 2020, appendix D).
    """

    def to_text(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        text = _question_and_context(example, example["answers"]["text"])
        if not has_context:
            text["inputs"] = _joined(["squad trivia question:", text["question"]])
        return {**text, "id": example["id"]}

    return mapped(to_text)


def mrqa_text() -> TextPreprocessor:
    """Returns a preprocessor that writes the data sets of MRQA as `squad_text` writes SQuAD.

    Returns:
      A function over datasets of {"qid", "context", "question": string, "answers": string [n]} that returns datasets of
      {"inputs", "targets", "idx", "context", "question", "answer": string, "answers": string [n]}.

    Source: Lester et al. 2021, section 5: the prompt is trained on SQuAD.
    """

    def to_text(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        text = _question_and_context(example, example["answers"])
        return {**text, "idx": example["qid"], "answer": text["targets"]}

    return mapped(to_text)


def _question_and_context(
    example: Mapping[str, tf.Tensor], answers: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Returns inputs, the first answer as targets, and all of it for evaluation."""
    question, context = _spaced(example["question"]), _spaced(example["context"])
    answers = _spaced(answers)
    return {
        "inputs": _joined(["question:", question, "context:", context]),
        "targets": answers[0],
        "context": context,
        "question": question,
        "answers": answers,
    }


def record_text(*, prefix: str = "") -> TextPreprocessor:
    """Returns a preprocessor for ReCoRD: an example for every right answer; one with `<unk>` where there is none.

    Args:
      prefix: First word of the input (T5: `record`); empty for the form used in prompt tuning.

    Returns:
      A function over datasets of {"passage", "query": string, "entities": string [m], "answers": string [n], "idx":
      {"passage", "query": int32}} that returns datasets of {"inputs", "targets": string, "answers": string [n],
      "idx/passage", "idx/query": int32}.

    Source: T5 (Raffel et al. 2020, appendix D).
    """

    def expand(example: Mapping[str, Any]) -> tf.data.Dataset:
        # The highlights below an article become sentences of it.
        passage = tf.strings.regex_replace(example["passage"], "([.?!\"'])\n@highlight\n", r"\1 ")
        passage = tf.strings.regex_replace(passage, "\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(example["entities"], separator=", ")
        words = ["query:", example["query"], "entities:", entities, "passage:", passage]
        shared = {
            "idx/passage": example["idx"]["passage"],
            "idx/query": example["idx"]["query"],
            "inputs": tf.strings.join([prefix, *words] if prefix else words, separator=" "),
            "answers": example["answers"],
        }
        has_none = tf.equal(tf.size(example["answers"]), 0)
        targets = tf.cond(has_none, lambda: tf.constant([UNLABELED]), lambda: example["answers"])
        return tf.data.Dataset.from_tensor_slices(targets).map(
            lambda target: {**shared, "targets": target}
        )

    return lambda ds: ds.flat_map(expand)


def _spaced(text: tf.Tensor) -> tf.Tensor:
    """Returns text with spaces around ASCII punctuation, and every run of white space as one space."""
    return tf.strings.regex_replace(
        tf.strings.regex_replace(text, "([[:punct:]])", r" \1 "), r"\s+", " "
    )


def _joined(words: list[Any]) -> tf.Tensor:
    """Returns the words in a row, again with single spaces."""
    return tf.strings.regex_replace(tf.strings.join(words, separator=" "), r"\s+", " ")


def all_answers(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> Any:
    """Postprocesses SQuAD and MRQA.

    Args:
      text: What the model wrote, or the target.
      example: With `answers`, where `text` is the target.
      is_target: Whether it is.

    Returns:
      The text; of a target all right answers.
    """
    return _texts((example or {})["answers"]) if is_target else text


def grouped_answers(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> dict[str, Any]:
    """Postprocesses ReCoRD.

    Args:
      text: What the model wrote, or the target.
      example: With `answers` and the two parts of `idx`, where `text` is the target.
      is_target: Whether it is.

    Returns:
      `value`: the text. Of a target, `value`: all right answers, and `group`: which query it is, so that a query with
      several examples counts once.
    """
    if not is_target:
        return {"value": text}
    example = example or {}
    group = (int(example["idx/passage"]), int(example["idx/query"]))
    return {"value": _texts(example["answers"]), "group": group}


def _texts(answers: Any) -> list[str]:
    """Returns byte strings as text."""
    return [a.decode("utf-8") if isinstance(a, bytes) else str(a) for a in answers]
