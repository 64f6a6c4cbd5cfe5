"""What there is to see of registered tasks: a list of them, and examples from raw record to model features."""

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import verbalizers
from prompt_tuning.data.batches import DatasetConfig, get_task
from prompt_tuning.data.registry import unwrap
from prompt_tuning.data.tallies import PRETOKENIZED, whole_lengths
from prompt_tuning.data.templates.render import CHOICES as _CHOICES
from prompt_tuning.data.templates.tasks import RECORD
from prompt_tuning.errors import DataError


def find_tasks(names: Sequence[str]) -> list[seqio.Task]:
    """Returns the registered tasks, those of mixtures included, each once.

    Args:
      names: Tasks and mixtures.

    Raises:
      DataError: There is none of a name; lists the closest ones.
    """
    tasks = [seqio.get_subtasks(get_task(DatasetConfig(name, None, "train", 1))) for name in names]
    return list({task.name: task for some in tasks for task in some}.values())


def is_registered(name: str) -> bool:
    """Returns whether a task has this name.

    Args:
      name: The name.
    """
    return name in seqio.TaskRegistry.names()


def list_tasks(pattern: str | None = None) -> list[dict[str, Any]]:
    """Returns the registered tasks and mixtures by name.

    Args:
      pattern: Shell pattern such as `taskless_*`, or a part of the name; None for all.

    Returns:
      {name, kind, splits, source, labels, metrics} each; of a mixture {name, kind, tasks}.
    """
    rows = []
    for name in sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}):
        if pattern and not (fnmatch.fnmatchcase(name, pattern) or pattern in name):
            continue
        if name in seqio.MixtureRegistry.names():
            tasks = sorted(task.name for task in seqio.MixtureRegistry.get(name).tasks)
            rows.append({"name": name, "kind": "mixture", "tasks": tasks})
            continue
        task = seqio.TaskRegistry.get(name)
        rows.append(
            {
                "name": name,
                "kind": "task",
                "splits": sorted(map(str, task.splits)),
                "source": repr(task.source),
                "labels": list(verbalizers.get_verbalizers(name) or ()),
                "metrics": [_function_name(fn) for fn in (task.metric_fns or ())],
            }
        )
    return rows


def available_splits(task: seqio.Task) -> list[str]:
    """Returns the splits whose files are there; TensorFlow Datasets may download to find out.

    Args:
      task: The task.

    Raises:
      DataError: None is.
    """
    found, missing = [], None
    for split in map(str, task.splits):
        try:
            task.source.list_shards(split)
            found.append(split)
        except DataError as error:
            missing = error
    if not found and missing is not None:
        raise missing
    return found


def iterate(
    task: seqio.Task, split: str, lengths: Mapping[str, int] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Yields the examples of a split in order, tokenized and ended by EOS.

    Args:
      task: The task.
      split: The split.
      lengths: Tokens kept of each feature; None for all.
    """
    yield from task.get_dataset(
        lengths, split=split, shuffle=False, num_epochs=1, seed=0, try_in_mem_cache=False
    ).as_numpy_iterator()


def show_examples(
    task: seqio.Task, split: str, *, lengths: Mapping[str, int], count: int
) -> list[dict[str, Any]]:
    """Returns the first raw examples of a split with all that is made of them.

    Args:
      task: The task.
      split: The split.
      lengths: Tokens kept of each feature.
      count: Raw examples.

    Returns:
      {raw, examples} for each; an entry of `examples` (none where preprocessing drops the raw one) has `text`, `ids`,
      `decoded` and `truncated` by feature, `choices`: the answers to choose among, where a template has made some, and
      `model`: the converted features, masks included.
    """
    source = task.source.get_dataset(split=split, shuffle=False, seed=0)
    shown = []
    for index, raw in enumerate(source.take(count).as_numpy_iterator()):
        one = task.preprocess_precache(source.skip(index).take(1), seed=0)
        whole = task.preprocess_postcache(one, sequence_length=whole_lengths(task, lengths), seed=0)
        cut = task.preprocess_postcache(one, sequence_length=dict(lengths), seed=0)
        cut = task._trim_output_features(cut, sequence_length=dict(lengths))
        model = seqio.EncDecFeatureConverter(pack=False)(
            cut.map(lambda e: {k: e[k] for k in task.output_features}), dict(lengths)
        )
        shown.append(
            {
                "raw": json.loads(raw[RECORD]) if set(raw) == {RECORD} else to_plain(raw),
                "examples": [
                    _describe(task, a, b, features)
                    for a, b, features in zip(
                        whole.as_numpy_iterator(),
                        cut.as_numpy_iterator(),
                        model.as_numpy_iterator(),
                        strict=True,
                    )
                ],
            }
        )
    return shown


def _describe(
    task: seqio.Task, whole: Mapping[str, Any], cut: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns one preprocessed example, as text, ids and model features."""
    names = [name for name in task.output_features if name in cut]
    text = {n: to_plain(cut[n + PRETOKENIZED]) for n in names if n + PRETOKENIZED in cut}
    decoded = {
        n: task.output_features[n].vocabulary.decode([int(i) for i in cut[n]]) for n in names
    }
    encoder = np.asarray(model["encoder_input_tokens"])
    masks = {
        "encoder_mask": (encoder > 0).astype(int).tolist(),
        "decoder_mask": (np.asarray(model["decoder_target_tokens"]) > 0).astype(int).tolist(),
    }
    return {
        "text": text,
        "ids": {n: to_plain(cut[n]) for n in names},
        "decoded": decoded,
        "truncated": {n: len(whole[n]) - len(cut[n]) for n in names},
        "choices": to_plain(whole[_CHOICES]) if _CHOICES in whole else [],
        "model": {**{k: to_plain(v) for k, v in model.items()}, **masks},
    }


def to_plain(value: Any) -> Any:
    """Returns a value as JSON can hold it.

    Args:
      value: A value, or dict of values, of a dataset.
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, tf.RaggedTensor | tf.compat.v1.ragged.RaggedTensorValue):
        return to_plain(value.to_list())
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def _function_name(fn: Any) -> str:
    """Returns the name of a metric function."""
    return getattr(unwrap(fn), "__qualname__", repr(fn)).split(".<locals>")[0]
