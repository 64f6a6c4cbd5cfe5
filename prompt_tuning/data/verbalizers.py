"""Which words a task's answers consist of, and whether they fit the decoder."""

from collections.abc import Sequence

import seqio

from prompt_tuning.errors import DataError

_VERBALIZERS: dict[str, tuple[str, ...]] = {}


def register_verbalizers(task_name: str, verbalizers: Sequence[str]) -> None:
    """Records the text of each class of a task.

    Args:
      task_name: Registered SeqIO task.
      verbalizers: Text of each class, by class index; none where the answers are free text.
    """
    _VERBALIZERS.pop(task_name, None)
    if verbalizers:
        _VERBALIZERS[task_name] = tuple(verbalizers)


def get_verbalizers(task_name: str) -> tuple[str, ...] | None:
    """Returns the text of each class by class index, or None where the task's answers are free text."""
    return _VERBALIZERS.get(task_name)


def check_fit(task_name: str, *, feature: seqio.utils.Feature, length: int) -> None:
    """Checks that no class label would be cut off, which would train the model on half a word.

    Args:
      task_name: Registered SeqIO task; one without verbalizers passes.
      feature: Its `targets` feature.
      length: Decoder length, in tokens (`TASK_FEATURE_LENGTHS['targets']`).

    Raises:
      DataError: A verbalizer and its EOS are longer than `length`.
    """
    for text in get_verbalizers(task_name) or ():
        num_tokens = len(feature.vocabulary.encode(text)) + int(feature.add_eos)
        if num_tokens > length:
            raise DataError(
                f"The label {text!r} of task {task_name!r} is {num_tokens} tokens long"
                f"{' with its EOS' if feature.add_eos else ''} and does not fit the targets",
                got=length,
                expected=f"TASK_FEATURE_LENGTHS['targets'] of at least {num_tokens}",
                fix=f"set TASK_FEATURE_LENGTHS['targets'] to {num_tokens} or more",
            )
