"""Checks of a task: its schema, its labels, its metrics on perfect answers, and that its splits share no example."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import seqio

from prompt_tuning.commands.tasks import views
from prompt_tuning.data import answer_metrics, verbalizers
from prompt_tuning.data.preprocessors import UNLABELED, WITHHELD
from prompt_tuning.data.tallies import PRETOKENIZED, Tally, whole_lengths
from prompt_tuning.errors import DataError


@dataclasses.dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
      name: What was checked.
      status: `ok`, `failed`, or `skipped` where the task has no such thing; `warning` for what may be meant.
      detail: What was found; for a failure, what to do.
    """

    name: str
    status: str
    detail: str


@dataclasses.dataclass
class _Split:
    """What one pass over a split has found.

    Attributes:
      num: Examples.
      inputs: Digest of each input.
      targets: Post-processed targets.
      answers: Right answers, post-processed as if the model had written them: the targets' text, or another where the
        task wants any text but that (more than half of WSC).
      num_others: How many of these are another text.
      is_unlabeled: Whether a target is the mark of a withheld label.
    """

    num: int = 0
    inputs: set[bytes] = dataclasses.field(default_factory=set)
    targets: list[Any] = dataclasses.field(default_factory=list)
    answers: list[Any] = dataclasses.field(default_factory=list)
    num_others: int = 0
    is_unlabeled: bool = False


def check_task(
    task: seqio.Task, *, lengths: Mapping[str, int], splits: list[str] | None = None
) -> list[Check]:
    """Checks a task on its data; reads each split once.

    Args:
      task: The task.
      lengths: Tokens kept of each feature.
      splits: Splits to check; None for all whose files are there.

    Returns:
      One entry a check.
    """
    try:
        splits = splits or views.available_splits(task)
    except DataError as error:
        return [Check("schema", "failed", str(error))]
    results, read = [], {}
    for split in splits:
        found, *of_split = _check_schema(task, split, lengths)
        results += of_split
        if of_split[0].status == "ok":
            read[split] = found
    results.append(_check_labels(task, lengths["targets"]))
    results += [_check_gold(task, split, found) for split, found in read.items()]
    results.append(_check_overlap({split: found.inputs for split, found in read.items()}))
    return results


def _check_schema(task: seqio.Task, split: str, lengths: Mapping[str, int]) -> list[Any]:
    """Reads a split; returns what was found, the result, and warnings."""
    name, found = f"schema of {split}", _Split()
    vocabularies = {n: feature.vocabulary for n, feature in task.output_features.items()}
    tally = Tally(split, vocabularies, lengths)
    try:
        for example in views.iterate(task, split, whole_lengths(task, lengths)):
            found.num += 1
            tally.add(example)
            for feature, spec in task.output_features.items():
                if feature in example:
                    _check_ids(np.asarray(example[feature]), spec.vocabulary, feature, found.num)
            _collect(task, example, found)
    # TensorFlow wraps what went wrong in a preprocessor in errors of its own.
    except Exception as error:
        return [found, Check(name, "failed", f"example {found.num + 1}: {error}")]
    if found.num == 0:
        return [found, Check(name, "failed", "0 examples after preprocessing; correct the data")]
    try:
        # Whether targets may be withheld is for the check of the gold answers.
        warnings = tally.check(needs_targets=not found.is_unlabeled)
    except DataError as error:
        return [found, Check(name, "failed", str(error))]
    repeated = found.num - len(found.inputs)
    more = f"; {repeated} repeat an input of this split" if repeated else ""
    result = Check(name, "ok", f"{found.num} examples{more}")
    return [found, result, *(Check(name, "warning", text) for text in warnings)]


def _collect(task: seqio.Task, example: Mapping[str, Any], found: _Split) -> None:
    """Adds what the later checks need of one example."""
    text = example.get("inputs" + PRETOKENIZED)
    if text is None:
        text = np.asarray(example.get("inputs", example["targets"])).tobytes()
    else:
        # The same sentence with another number of spaces is the same sentence.
        text = b" ".join(text.split())
    found.inputs.add(hashlib.blake2b(text, digest_size=12).digest())
    target = example.get("targets" + PRETOKENIZED)
    found.is_unlabeled |= target is not None and target.decode("utf-8", "replace") in WITHHELD
    if not task.predict_metric_fns:
        return
    vocabulary = task.output_features["targets"].vocabulary
    answer = vocabulary.decode([int(i) for i in example["targets"]])
    target = answer if target is None else target.decode("utf-8")
    wanted = task.postprocess_fn(target, example=example, is_target=True)
    said, other = (
        task.postprocess_fn(text, example=example, is_target=False) for text in (answer, UNLABELED)
    )
    if not _agree(wanted, said) and _agree(wanted, other):
        said = other
        found.num_others += 1
    found.targets.append(wanted)
    found.answers.append(said)


def _agree(target: Any, prediction: Any) -> bool:
    """Whether a post-processed prediction is right, also one that carries its example."""
    if isinstance(prediction, Mapping) and "prediction" in prediction:
        prediction = prediction["prediction"]
    return answer_metrics.is_right(target, prediction)


def _check_ids(ids: np.ndarray, vocabulary: seqio.Vocabulary, feature: str, number: int) -> None:
    """Raises DataError if ids are not what a model reads."""
    what = f"example {number}: feature {feature!r}"
    fix = "correct the task's preprocessors, or name the vocabulary that they use"
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise DataError(
            f"{what} is not a row of ids",
            got=f"{ids.dtype} {ids.shape}",
            expected="int [n]",
            fix=fix,
        )
    if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary.vocab_size:
        raise DataError(
            f"{what} has an id outside the vocabulary",
            got=int(ids.max()),
            expected=f"0 to {vocabulary.vocab_size - 1}",
            fix=fix,
        )


def _check_labels(task: seqio.Task, length: int) -> Check:
    """Checks that labels fit the target length, and that the vocabulary writes each as itself."""
    name = f"labels fit {length} tokens and the vocabulary"
    labels = verbalizers.get_verbalizers(task.name)
    if not labels:
        return Check(name, "skipped", "targets are free text")
    feature = task.output_features["targets"]
    try:
        verbalizers.check_labels(task.name, feature=feature, length=length)
    except DataError as error:
        return Check(name, "failed", str(error))
    end = int(feature.add_eos)
    tokens = [f"{label} {len(feature.vocabulary.encode(label)) + end}" for label in labels]
    return Check(name, "ok", "tokens with EOS: " + ", ".join(tokens))


def _check_gold(task: seqio.Task, split: str, found: _Split) -> Check:
    """Checks that the targets themselves score 100 in every metric."""
    name = f"gold answers of {split} score 100"
    if found.is_unlabeled and not split.startswith("test"):
        detail = "labels are missing; add them to every example, or remove those without"
        return Check(name, "failed", detail)
    if not task.predict_metric_fns:
        kind = "compare scores, not answers" if task.metric_fns else "are none"
        return Check(name, "skipped", f"its metrics {kind}")
    if found.is_unlabeled:
        return Check(name, "skipped", "the labels of this split are withheld")
    scores: dict[str, float] = {}
    for metric_fn in task.predict_metric_fns:
        for metric, value in metric_fn(found.targets, found.answers).items():
            # Texts and images are metrics too.
            if isinstance(value, int | float | np.number):
                scores[metric] = float(value)
    detail = ", ".join(f"{metric} {value:.2f}" for metric, value in scores.items())
    if found.num_others:
        detail += f"; {found.num_others} examples want any text but their target"
    if all(abs(value - 100) < 1e-6 for value in scores.values()):
        return Check(name, "ok", detail)
    return Check(
        name,
        "failed",
        f"{detail}; correct the postprocessor or metric (a class may be absent here)",
    )


def _check_overlap(inputs: Mapping[str, set[bytes]]) -> Check:
    """Checks that no input occurs in two splits."""
    name = "splits do not overlap"
    names = list(inputs)
    if len(names) < 2:
        return Check(name, "skipped", "fewer than two splits are there")
    shared = [
        f"{len(inputs[a] & inputs[b])} inputs in both {a} and {b}"
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if inputs[a] & inputs[b]
    ]
    if shared:
        return Check(name, "failed", "; ".join(shared) + "; remove them from the training split")
    return Check(name, "ok", f"{', '.join(names)} share no input")
