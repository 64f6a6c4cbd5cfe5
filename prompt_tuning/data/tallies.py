"""Examples as the model sees them, counted: how many are cut, hold unknown tokens, look alike or have no answer."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio

from prompt_tuning.data.preprocessors import WITHHELD
from prompt_tuning.data.registry import unwrap
from prompt_tuning.data.vocabularies import end_of
from prompt_tuning.errors import DataError

PRETOKENIZED = "_pretokenized"
# Examples that a run looks at before it starts, over all tasks of a mixture, and of each task at least.
SAMPLE, SAMPLE_OF_EACH = 200, 8


class AlikeError(DataError):
    """The model sees different texts as one."""


def several_fail(failed: Mapping[str, DataError], num: int) -> DataError:
    """Returns the error for a mixture of which several tasks fail.

    Args:
      failed: Name of a task -> what is wrong with it.
      num: Tasks of the mixture.
    """
    first = next(iter(failed.values()))
    return DataError(
        f"{len(failed)} of the mixture's {num} tasks cannot be used; the first because: {first} All of them",
        got=", ".join(failed),
        expected="tasks whose examples can be read",
        fix="correct each, or leave them out by name (tasks.t0.leave_out)",
    )


class Tally:
    """Counts over the examples of one split or file.

    Args:
      where: What holds the examples, for messages: "train of 'reviews'".
      vocabularies: Of each feature.
      lengths: Tokens kept of each feature; None where nothing is cut.
    """

    def __init__(
        self,
        where: str,
        vocabularies: Mapping[str, seqio.Vocabulary],
        lengths: Mapping[str, int] | None,
    ):
        self.num = 0
        self._where = where
        self._features = {
            name: _Feature(name, vocabulary, (lengths or {}).get(name))
            for name, vocabulary in vocabularies.items()
        }

    def add(self, example: Mapping[str, Any]) -> None:
        """Counts an example.

        Args:
          example: Ids of each feature, whole, with EOS where it has one; its text as `{feature}_pretokenized`, where
            it is kept.
        """
        self.num += 1
        for name, feature in self._features.items():
            if name in example:
                feature.add(np.asarray(example[name]), example.get(name + PRETOKENIZED))

    def check(self, *, needs_targets: bool) -> list[str]:
        """Returns what may be meant or not, with how many examples it is true of.

        Args:
          needs_targets: Whether the answers are learnt, compared or scored.

        Raises:
          DataError: No result would mean anything: no example has an answer; an AlikeError where the model sees
            different texts as one.
        """
        features = [f for name, f in self._features.items() if needs_targets or name != "targets"]
        for feature in features:
            if len(feature.texts) > 1 and len(feature.tokens) == 1:
                raise self._alike(feature)
        targets = self._features.get("targets")
        withheld = targets.num_withheld if targets and needs_targets else 0
        if 0 < withheld == self.num:
            raise DataError(
                f"The targets of {self._where} are withheld",
                got=f"no target in {self.num} examples",
                expected="answers to compare with",
                fix="name a split that has them, or run `prompt-tuning infer` for predictions alone",
            )
        found = [f"{withheld} of {self.num} targets of {self._where} are withheld"]
        return (found if withheld else []) + [
            text for feature in features for text in feature.warnings(self.num, self._where)
        ]

    def _alike(self, feature: "_Feature") -> AlikeError:
        """The error for texts that differ and are the same tokens."""
        if feature.num_cut == feature.num:
            cause = f"cut at {feature.length} tokens"
            fix = f"set TASK_FEATURE_LENGTHS[{feature.name!r}] to {feature.longest} or more"
        else:
            cause = "written in this vocabulary"
            fix = "name a vocabulary (and a model) of the language of these texts"
        return AlikeError(
            f"The {feature.name} of {self._where} are all the same, {cause}",
            got=f"different texts, 1 row of tokens; {feature.num_unknown} of {self.num} hold tokens that the"
            " vocabulary lacks (<unk>)",
            expected="texts that the model can tell apart",
            fix=fix,
        )


class _Feature:
    """Counts of one feature."""

    def __init__(self, name: str, vocabulary: seqio.Vocabulary, length: int | None):
        self.name = name
        self.length = length
        self.num = self.num_withheld = self.num_cut = self.num_unknown = self.longest = 0
        # Two of each are enough to know that there are several.
        self.texts: set[bytes] = set()
        self.tokens: set[bytes] = set()
        self._unk_id, self._end = vocabulary.unk_id, end_of(vocabulary)

    def add(self, ids: np.ndarray, text: Any) -> None:
        """Counts a row of ids and its text, if that is kept."""
        if text is not None:
            text = text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")
            if self.name == "targets" and text.decode("utf-8", "replace") in WITHHELD:
                self.num_withheld += 1
                return
        self.num += 1
        self.longest = max(self.longest, len(ids))
        kept = ids
        if self.length is not None and len(ids) > self.length:
            self.num_cut += 1
            ends = ids[-1] == self._end
            kept = np.append(ids[: self.length - 1], self._end) if ends else ids[: self.length]
        self.num_unknown += self._unk_id is not None and self._unk_id in ids
        if text is not None and len(self.texts) < 2:
            self.texts.add(b" ".join(text.split()))
        if len(self.tokens) < 2:
            self.tokens.add(kept.astype(np.int64).tobytes())

    def warnings(self, num: int, where: str) -> list[str]:
        """What is cut and what is unknown."""
        found = []
        if self.num_cut:
            found.append(
                f"{self.num_cut} of {num} {self.name} of {where} are cut at {self.length} tokens;"
                f" the longest has {self.longest} (TASK_FEATURE_LENGTHS)"
            )
        if self.num_unknown:
            found.append(
                f"{self.num_unknown} of {num} {self.name} of {where} hold tokens that the vocabulary"
                " lacks (<unk>)"
            )
        return found


def whole_lengths(task: seqio.Task, lengths: Mapping[str, int] | None) -> dict[str, int] | None:
    """Returns the lengths at which examples come whole: None, except where an objective makes them of a given length.

    Args:
      task: The task.
      lengths: Tokens of each feature; what such an objective gets.
    """
    for preprocessor in task.preprocessors:
        fn = unwrap(preprocessor)
        takes_lengths = "sequence_length" in inspect.signature(preprocessor).parameters
        if lengths and takes_lengths and fn is not seqio.preprocessors.append_eos_after_trim:
            return dict(lengths)
    return None
