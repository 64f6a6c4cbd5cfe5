"""Which words a task's answers consist of, and whether vocabulary and decoder can write them."""

import re
from collections.abc import Sequence

import seqio

from prompt_tuning.errors import DataError

_SENTINEL = re.compile(r"^<extra_id_0>\s*")
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


def check_labels(task_name: str, *, feature: seqio.utils.Feature, length: int) -> None:
    """Checks that the vocabulary writes each class label as itself, and that none would be cut off.

    Otherwise the model would learn other words than answers are compared with, or half a word.

    Args:
      task_name: Registered SeqIO task; one without verbalizers passes.
      feature: Its `targets` feature.
      length: Decoder length, in tokens (`TASK_FEATURE_LENGTHS['targets']`).

    Raises:
      DataError: A verbalizer is written as another text, or it and its EOS are longer than `length`.
    """
    for text in get_verbalizers(task_name) or ():
        ids = list(feature.vocabulary.encode(text))
        written = feature.vocabulary.decode(ids)
        # A sentinel in front is written as one id, and dropped from answers before they are compared.
        if _SENTINEL.sub("", written) != _SENTINEL.sub("", text):
            is_word = feature.vocabulary.unk_id not in ids and written.strip()
            raise DataError(
                f"The vocabulary writes the label {text!r} of task {task_name!r} as {written!r}",
                got=text,
                expected="a label that it writes as itself",
                fix=f"write {written!r} in the label_map" if is_word else "choose another word",
            )
        num_tokens = len(ids) + int(feature.add_eos)
        if num_tokens > length:
            raise DataError(
                f"The label {text!r} of task {task_name!r} is {num_tokens} tokens long"
                f"{' with its EOS' if feature.add_eos else ''} and does not fit the targets",
                got=length,
                expected=f"TASK_FEATURE_LENGTHS['targets'] of at least {num_tokens}",
                fix=f"set TASK_FEATURE_LENGTHS['targets'] to {num_tokens} or more",
            )
