"""Examples to predict or score, one at a time: from a task's split, a file or strings."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
from absl import logging

from prompt_tuning.data import batches, context, example_tasks, pipelines, tallies
from prompt_tuning.data.own import input_files
from prompt_tuning.data.tallies import PRETOKENIZED
from prompt_tuning.data.vocabularies import end_of
from prompt_tuning.errors import DataError
from prompt_tuning.types import TASK

# What a row of a file of several tasks names its own by.
TASK_KEY = "task"
_FEATURES = ("inputs", "targets")


@dataclasses.dataclass(frozen=True)
class InferenceExample:
    """One example.

    Attributes:
      inputs: The texts shown beside the prediction, with T5X's keys `inputs_pretokenized` and `targets_pretokenized`;
        with `task` where a file mixes several.
      features: Model features without a batch axis.
    """

    inputs: dict[str, Any]
    features: dict[str, np.ndarray]


def from_task(cfg: batches.DatasetConfig) -> Iterator[InferenceExample]:
    """Yields the examples of a task's split in order.

    Args:
      cfg: Task, split and lengths.

    Raises:
      ConfigError: If no lengths are given.
    """
    lengths = batches.check_lengths(cfg.task_feature_lengths, _FEATURES)
    with context.overriding(data_dir=cfg.data_dir):
        make = functools.partial(
            example_tasks.read_once,
            batches.get_task(cfg),
            lengths,
            cfg.tasks,
            split=cfg.split,
            shuffle=False,
            seed=cfg.seed,
            use_cached=cfg.use_cached,
        )
        dataset = pipelines.made(make)
    for example in pipelines.numpy_iterator(dataset):
        texts = {k: _text(v) for k, v in example.items() if k.endswith(PRETOKENIZED)}
        features = model_features(example["inputs"], example["targets"], lengths)
        if cfg.tasks:
            features[TASK] = example[TASK]
        yield InferenceExample(texts, features)


def from_file(
    path: str,
    *,
    input_vocabulary: seqio.Vocabulary,
    output_vocabulary: seqio.Vocabulary,
    lengths: Mapping[str, int] | None,
    needs_targets: bool = False,
    task_names: Sequence[str] | None = None,
    inputs_end: bool = True,
) -> Iterator[InferenceExample]:
    """Yields the examples of a JSONL, TSV, CSV or plain-text file in order.

    Args:
      path: The file, as `input_files.read_examples` takes it.
      input_vocabulary: Encodes the inputs.
      output_vocabulary: Encodes the targets, where there are any.
      lengths: TASK_FEATURE_LENGTHS, in tokens.
      needs_targets: Whether an example without targets is an error (scoring).
      task_names: What the `task` of a row may be, which each must have then; None does not look for any.
      inputs_end: Whether inputs end with EOS, as those of the task that the model learnt.

    Raises:
      DataError: If the file is malformed (file and line are named), lacks targets that are needed, names an unknown
        task, or holds different texts that are the same tokens.
      ConfigError: If no lengths are given.
    """
    rows = input_files.read_examples(path)
    # Every row has targets, or none.
    has_targets = "targets" in rows[0]
    if needs_targets and not has_targets:
        raise DataError(
            f"{path} has nothing to score",
            got=sorted(rows[0]),
            expected="`inputs` and `targets`",
            fix="add `targets` to every example, or use infer.mode = 'predict'",
        )
    tasks = None if task_names is None else _tasks_of(rows, task_names, path)
    vocabularies = {"inputs": input_vocabulary, "targets": output_vocabulary}
    tally = tallies.Tally(path, vocabularies, batches.check_lengths(lengths, _FEATURES))
    for row in rows[: tallies.SAMPLE]:
        texts = {name: row[name] for name in _FEATURES if name in row}
        ids = {n: [*vocabularies[n].encode(texts[n]), end_of(vocabularies[n])] for n in texts}
        ids["inputs"] = ids["inputs"] if inputs_end else ids["inputs"][:-1]
        tally.add({**ids, **{name + PRETOKENIZED: text for name, text in texts.items()}})
    for warning in tally.check(needs_targets=needs_targets):
        logging.warning("%s", warning)
    return from_strings(
        [row["inputs"] for row in rows],
        [row["targets"] for row in rows] if has_targets else None,
        input_vocabulary=input_vocabulary,
        output_vocabulary=output_vocabulary,
        lengths=lengths,
        tasks=tasks,
        inputs_end=inputs_end,
    )


def numbered(
    examples: Iterator[InferenceExample], tasks: example_tasks.Tasks, feature: str
) -> Iterator[InferenceExample]:
    """Yields examples with the number of what their `task` names, as a feature.

    Args:
      examples: With a `task` among what is shown of them.
      tasks: What the tasks are called, in the order of the numbers.
      feature: The feature's name.
    """
    for example in examples:
        number = example_tasks.number_of(example.inputs[TASK_KEY], tasks)
        yield InferenceExample(example.inputs, {**example.features, feature: np.asarray(number)})


def inputs_end(task_name: str | None) -> bool:
    """Returns whether texts for a model that learnt a task end with EOS: as the task's inputs do; without a task, yes.

    Args:
      task_name: A task or mixture; one that is not registered counts as none.
    """
    if task_name not in [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]:
        return True
    features = seqio.get_mixture_or_task(task_name).output_features
    return "inputs" not in features or features["inputs"].add_eos


def from_strings(
    inputs: Iterable[str],
    targets: Sequence[str] | None,
    *,
    input_vocabulary: seqio.Vocabulary,
    output_vocabulary: seqio.Vocabulary,
    lengths: Mapping[str, int] | None,
    tasks: Sequence[str] | None = None,
    inputs_end: bool = True,
) -> Iterator[InferenceExample]:
    """Yields one example an input; EOS is appended after trimming, as the tasks do.

    Args:
      inputs: Texts in the task's form.
      targets: As many texts, or None where nothing is scored.
      input_vocabulary: Encodes the inputs.
      output_vocabulary: Encodes the targets.
      lengths: TASK_FEATURE_LENGTHS, in tokens.
      tasks: As many names, or None where there is one task.
      inputs_end: Whether inputs end with EOS; targets do.
    """
    checked = batches.check_lengths(lengths, _FEATURES)
    for index, text in enumerate(inputs):
        texts = {f"inputs{PRETOKENIZED}": text}
        if tasks is not None:
            texts[TASK_KEY] = tasks[index]
        target_ids: list[int] = []
        if targets is not None:
            texts[f"targets{PRETOKENIZED}"] = targets[index]
            target_ids = _with_eos(output_vocabulary, targets[index], checked["targets"])
        if inputs_end:
            input_ids = _with_eos(input_vocabulary, text, checked["inputs"])
        else:
            input_ids = input_vocabulary.encode(text)
        yield InferenceExample(texts, model_features(input_ids, target_ids, checked))


def model_features(
    inputs: Sequence[int] | np.ndarray,
    targets: Sequence[int] | np.ndarray,
    lengths: Mapping[str, int],
) -> dict[str, np.ndarray]:
    """Returns what `seqio.EncDecFeatureConverter(pack=False)` makes of one example, int32.

    Args:
      inputs: Token ids, at most `lengths["inputs"]`.
      targets: Token ids with EOS, at most `lengths["targets"]`; may be empty.
      lengths: Widths L and T, in tokens.
    """
    encoder = _pad(inputs, lengths["inputs"])
    target = _pad(targets, lengths["targets"])
    return {
        "encoder_input_tokens": encoder,
        "decoder_target_tokens": target,
        "decoder_input_tokens": np.concatenate([np.zeros(1, np.int32), target[:-1]]),
        "decoder_loss_weights": (target > 0).astype(np.int32),
    }


def _tasks_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str], path: str) -> list[str]:
    """The task of each row, which is one of `names`."""
    for number, row in enumerate(rows, start=1):
        if TASK_KEY not in row:
            raise DataError(
                f"Example {number} of {path} does not say which task it is of",
                got=sorted(row),
                expected=f"a key {TASK_KEY!r} with one of {list(names)}",
                fix="add the key to every example of a JSONL file, or the column to a TSV file",
                name=TASK_KEY,
                candidates=row,
            )
        if row[TASK_KEY] not in names:
            raise DataError(
                f"Example {number} of {path} is of a task that no prompt is given for",
                got=row[TASK_KEY],
                expected=f"one of {list(names)}",
                fix="correct the name, or give its prompt too",
                name=str(row[TASK_KEY]),
                candidates=names,
            )
    return [row[TASK_KEY] for row in rows]


def _with_eos(vocabulary: seqio.Vocabulary, text: str, length: int) -> list[int]:
    """The ids of a text, trimmed so that EOS fits."""
    return [*vocabulary.encode(text)[: length - 1], end_of(vocabulary)]


def _pad(ids: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    """The ids [length] int32, trimmed or padded with 0 on the right."""
    row = np.zeros(length, np.int32)
    kept = np.asarray(ids, np.int32)[:length]
    row[: len(kept)] = kept
    return row


def _text(value: Any) -> Any:
    """A feature value as JSON shows it."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if isinstance(value, np.ndarray) else value
