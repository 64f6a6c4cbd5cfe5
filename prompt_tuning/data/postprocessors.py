"""Decoded text to the values that metrics compare."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

PostprocessFn = Callable[..., Any]


def label_index(verbalizers: Sequence[str]) -> PostprocessFn:
    """Returns a postprocessor from a verbalizer to its class index.

    Args:
      verbalizers: Text of each class, by class index.

    Returns:
      A function `(text, example=None, is_target=False) -> int`; text that is no verbalizer, letter by letter, is -1.
    """
    index_of = {text: index for index, text in enumerate(verbalizers)}

    def postprocess(text: str, example: Any = None, is_target: bool = False) -> int:
        del example, is_target
        return index_of.get(text, -1)

    return postprocess


def number(text: str, example: Any = None, is_target: bool = False) -> float:
    """Returns text as a number, -1.0 where it is none (STS-B).

    Args:
      text: What the model wrote, or the target.
      example: Not used.
      is_target: Not used.
    """
    del example, is_target
    try:
        return float(text)
    except ValueError:
        return -1.0


def plain_text(text: str, example: Any = None, is_target: bool = False) -> str:
    """Returns text as it is.

    Args:
      text: What the model wrote, or the target.
      example: Not used.
      is_target: Not used.
    """
    del example, is_target
    return text


def stripped(postprocess_fn: PostprocessFn) -> PostprocessFn:
    """Returns a postprocessor of text without the spaces around it, as T0's are.

    Args:
      postprocess_fn: Makes values of what is left.
    """

    def postprocess(text: str, example: Any = None, is_target: bool = False) -> Any:
        return postprocess_fn(text.strip(), example=example, is_target=is_target)

    return postprocess


def grouped_label_index(verbalizers: Sequence[str]) -> PostprocessFn:
    """Returns a postprocessor for answers to questions that are judged one by one (MultiRC).

    Args:
      verbalizers: Text of each class, by class index.

    Returns:
      A function to {"value": class index}; of a target also `group`, the number of its question.
    """
    to_index = label_index(verbalizers)

    def postprocess(
        text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
    ) -> dict[str, int]:
        value = {"value": to_index(text)}
        return {**value, "group": int((example or {})["idx/question"])} if is_target else value

    return postprocess


def translated(postprocess_fn: PostprocessFn, words: Mapping[str, str]) -> PostprocessFn:
    """Returns a postprocessor that reads the answers of a model that learnt other words for the same classes.

    Args:
      postprocess_fn: The postprocessor of the task that is evaluated.
      words: Word of the task that was trained on -> word of this one; replaced wherever it occurs.
    """

    def postprocess(text: str, example: Any = None, is_target: bool = False) -> Any:
        for old, new in words.items():
            text = text.replace(old, new)
        return postprocess_fn(text, example=example, is_target=is_target)

    return postprocess


EXAMPLE_FIELDS = ("inputs_pretokenized", "targets_pretokenized")


def with_examples(
    postprocess_fn: PostprocessFn, fields: Sequence[str] = EXAMPLE_FIELDS
) -> PostprocessFn:
    """Wraps a postprocessor so that predictions carry the example they belong to, for logging it.

    Args:
      postprocess_fn: The postprocessor of the task.
      fields: What of the example they carry.

    Returns:
      A postprocessor: targets as before; predictions as a dict with `prediction` (the value), `prediction_pretokenized`
      (what the model wrote) and the `fields`, as text, a list of texts, or None where absent.
    """

    def postprocess(
        text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
    ) -> Any:
        value = postprocess_fn(text, example=example, is_target=is_target)
        if is_target:
            return value
        shown = {key: _as_text((example or {}).get(key)) for key in fields}
        return {"prediction": value, "prediction_pretokenized": text, **shown}

    return postprocess


def _as_text(value: Any) -> Any:
    """Returns a feature of an example as text, or None where it is absent."""
    if value is None:
        return None
    if isinstance(value, np.ndarray | list | tuple):
        return [_as_text(item) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
