"""Downstream targets that begin with a sentinel, as those of span corruption do: an ablation of the paper."""

from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data.preprocessors import prepend_id
from prompt_tuning.data.text.denoising import FIRST_SENTINEL, sentinel_id
from prompt_tuning.data.text.objectives import Features
from prompt_tuning.data.verbalizers import get_verbalizers, register_verbalizers

SUFFIX = "_sentinel"


def register_with_sentinel(task_name: str) -> str:
    """Registers a copy of a task whose targets begin with `<extra_id_0>`, and which drops it from predictions.

    Args:
      task_name: A registered task; its verbalizers get the sentinel too.

    Returns:
      The name of the copy, `{task_name}_sentinel`. One that is registered already is kept.

    Source: Lester et al. 2021, section 3.2, "Span Corruption + Sentinel".
    """
    name = f"{task_name}{SUFFIX}"
    if name in seqio.TaskRegistry.names():
        return name
    task = seqio.TaskRegistry.get(task_name)
    steps = list(task.preprocessors)
    # Behind the cache, if any, so that both tasks can share its ids; before the targets are trimmed and ended.
    starts = [
        number
        for number, step in enumerate(steps, start=1)
        if isinstance(step, seqio.CacheDatasetPlaceholder) or step is seqio.preprocessors.tokenize
    ]
    steps.insert(starts[-1], prepend_sentinel)

    def postprocess(text: Any, **kwargs: Any) -> Any:
        return task.postprocess_fn(without_sentinel(text), **kwargs)

    copy = task.replace(name=name, preprocessors=steps, postprocess_fn=postprocess)
    seqio.TaskRegistry.add_provider(name, copy)
    verbalizers = get_verbalizers(task_name)
    if verbalizers is not None:
        register_verbalizers(name, [f"{FIRST_SENTINEL} {text}" for text in verbalizers])
    return name


def prepend_sentinel(ds: tf.data.Dataset, output_features: Features) -> tf.data.Dataset:
    """Returns examples whose targets begin with the first sentinel.

    Args:
      ds: {"targets": int32 [n], …}.
      output_features: The task's features.

    Returns:
      The same with "targets": int32 [n + 1].

    Raises:
      DataError: The vocabulary has no sentinels.
    """
    return prepend_id(ds, "targets", sentinel_id(output_features["targets"].vocabulary))


def without_sentinel(text: Any) -> Any:
    """Returns decoded text without a sentinel at its start, and without blanks in front of what is left.

    Source: the authors' `remove_extra_id_0`, which drops these blanks also where there is no sentinel.

    Args:
      text: Decoded text; other values are returned as they are.
    """
    return text.removeprefix(FIRST_SENTINEL).lstrip() if isinstance(text, str) else text
