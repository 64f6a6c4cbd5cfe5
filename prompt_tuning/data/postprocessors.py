"""Decoded text to the values that metrics compare."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def with_examples(postprocess_fn: PostprocessFn) -> PostprocessFn:
    """Wraps a postprocessor so that predictions carry the example they belong to, for logging it.

    Args:
      postprocess_fn: The postprocessor of the task.

    Returns:
      A postprocessor: targets as before; predictions as a dict with `prediction` (the value), `prediction_pretokenized`
      (what the model wrote), `inputs_pretokenized` and `targets_pretokenized`.
    """

    def postprocess(
        text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
    ) -> Any:
        value = postprocess_fn(text, example=example, is_target=is_target)
        if is_target:
            return value
        fields = {
            key: _as_text((example or {}).get(key))
            for key in ("inputs_pretokenized", "targets_pretokenized")
        }
        return {"prediction": value, "prediction_pretokenized": text, **fields}

    return postprocess


def _as_text(value: Any) -> str | None:
    """Returns a feature of an example as text, or None where it is absent."""
    if value is None:
        return None
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
