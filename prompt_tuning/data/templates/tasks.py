"""SeqIO tasks of templates: raw records to text, one task a template, and its form that ranks the answer choices."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import pipelines, postprocessors, ranking
from prompt_tuning.data.metric_names import CLASS_METRICS, TEXT_METRICS, find_metrics
from prompt_tuning.data.preprocessors import NO_LABEL, Rows, TextPreprocessor, over_rows
from prompt_tuning.data.registry import make_task
from prompt_tuning.data.templates.check import render_record
from prompt_tuning.data.templates.read import Template
from prompt_tuning.data.templates.render import Renderer, fixed_choices

# The one field of sources whose raw examples are JSON objects of any form.
RECORD = "record"
SCORE_EVAL = "_score_eval"
# Promptsource's names of metrics -> names here; what it calls "Other" T0 measures by accuracy.
METRICS = {
    "Accuracy": "accuracy",
    "BLEU": "bleu",
    "Other": "accuracy",
    "Pearson Correlation": "pearson_corrcoef",
    "ROUGE": "rouge",
    "Spearman Correlation": "spearman_corrcoef",
    "Squad": "squad",
}


def template_task(
    name: str,
    source: seqio.DataSource,
    template: Template,
    *,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    text: TextPreprocessor | None = None,
    **parts: Any,
) -> seqio.Task:
    """Returns a task, not registered yet, whose examples are records written by a template.

    Its metrics compare the class, where the choices of the template are fixed, else the text, both without spaces
    around them.

    Args:
      name: Its name.
      source: Raw examples: records of any features, or of the one feature `record` (JSON).
      template: Writes inputs, targets and answer choices.
      metrics: Names of metrics; None takes those of the template. Those of classes are left out where answers are
        free text.
      seed: Seed of what the template draws at random, with the record.
      text: Makes the text of raw examples in place of the template, as `to_text` would.
      **parts: As of `registry.make_task`.

    Raises:
      ConfigError: A metric has no counterpart here.
    """
    names = [METRICS.get(m, m) for m in template.metrics] if metrics is None else list(metrics)
    labels = None if TEXT_METRICS.intersection(names) else fixed_choices(template)
    names = [metric for metric in names if labels or metric not in CLASS_METRICS]
    answer = postprocessors.label_index(labels) if labels else postprocessors.plain_text
    return make_task(
        name,
        source=source,
        to_text=text or to_text((template,), seed=seed),
        postprocess_fn=postprocessors.stripped(answer),
        metric_fns=find_metrics(names, num_classes=len(labels) if labels else None),
        **parts,
    )


def score_task(
    name: str,
    source: seqio.DataSource,
    template: Template,
    *,
    length_normalized: bool = False,
    seed: int = 0,
    text: TextPreprocessor | None = None,
    **parts: Any,
) -> seqio.Task:
    """Returns the form of `template_task` that ranks the answer choices of each example.

    Args:
      name: Its name, as a rule that of the task with `_score_eval`.
      source: As of `template_task`.
      template: One with answer choices.
      length_normalized: Whether a choice counts by its mean log-likelihood per token (T-Few), or by the sum (T0).
      seed: As of `template_task`.
      text: As of `template_task`.
      **parts: As of `registry.make_task`.
    """
    ranked = ranking.ranked_choices(
        text or to_text((template,), seed=seed), length_normalized=length_normalized
    )
    return make_task(name, source=source, **ranked, **parts)


def to_text(templates: Sequence[Template], *, seed: int) -> TextPreprocessor:
    """Returns a preprocessor that writes records by a template, or by one of several, drawn anew in each epoch.

    As in T0, a record that does not become two parts, or whose inputs are empty, is dropped; empty targets become
    `<NO LABEL>`.

    Args:
      templates: One or several.
      seed: Seed of what a template draws at random, with the record. Which template an example takes follows from the
        seed of the run, the epoch and the example's place in it.

    Returns:
      A function over datasets of raw examples to {"inputs", "targets": string, "answer_choices": string [choices],
      "label": int64, which of them the target is, or -1}, and what they were kept by.
    """
    templates = tuple(templates)
    first = templates[0]

    def write(example: Mapping[str, Any], draw: Any = 0) -> dict[str, Any]:
        flat = tf.nest.flatten(example)

        def python(drawn: Any, *values: Any) -> tuple[Any, ...]:
            template = templates[int(drawn) % len(templates)]
            with pipelines.remembering():
                return _written(template, _record(example, values), seed)

        kinds = (tf.string, tf.string, tf.string, tf.int64, tf.bool)
        inputs, targets, choices, label, is_kept = tf.numpy_function(
            python, [draw, *flat], kinds, stateful=False
        )
        written = {"inputs": inputs, "targets": targets, "label": label, _KEPT: is_kept}
        for value in written.values():
            value.set_shape([])
        choices.set_shape([None])
        return {**written, "answer_choices": choices}

    if len(templates) > 1:
        mapped: Callable[..., Any] = seqio.map_over_dataset(
            lambda example, seed: write(example, seed[0]), num_seeds=1
        )
    else:
        mapped = functools.partial(_map, write)

    def preprocess(ds: tf.data.Dataset) -> tf.data.Dataset:
        return mapped(ds).filter(lambda example: example[_KEPT])

    def write_rows(rows: Rows) -> Rows:
        for example in rows:
            values = [x.numpy() if tf.is_tensor(x) else x for x in tf.nest.flatten(example)]
            written = _written(first, _record(example, values), seed)
            if written[-1]:
                yield dict(zip(_WRITTEN, written, strict=True))

    return over_rows(preprocess, write_rows) if len(templates) == 1 else preprocess


_KEPT = "is_kept"
# What `_written` returns.
_WRITTEN = ("inputs", "targets", "answer_choices", "label", _KEPT)


def _map(fn: Callable[..., Any], ds: tf.data.Dataset) -> tf.data.Dataset:
    # Python runs on one thread at a time: more would only wait for one another.
    return ds.map(fn, num_parallel_calls=1)


@functools.lru_cache(maxsize=4096)
def _renderer(template: Template) -> Renderer:
    """The compiled template; made when the first record comes, since a mixture has hundreds."""
    return Renderer(template)


def _written(template: Template, record: Mapping[str, Any], seed: int) -> tuple[Any, ...]:
    """Inputs, targets, choices, label and whether T0 keeps the record."""
    rendered = render_record(_renderer(template), record, seed=seed)
    choices = list(rendered.answer_choices or ())
    is_kept = len(rendered.parts) == 2 and rendered.parts[0] != ""
    inputs, targets = rendered.parts if is_kept else ("", "")
    label = choices.index(targets) if targets in choices else -1
    return (
        inputs.encode("utf-8"),
        (targets or NO_LABEL).encode("utf-8"),
        np.array([choice.encode("utf-8") for choice in choices], dtype=object),
        np.int64(label),
        np.bool_(is_kept),
    )


def _record(example: Mapping[str, Any], values: Sequence[Any]) -> Mapping[str, Any]:
    """The record that tensors hold."""
    if set(example) == {RECORD}:
        return json.loads(values[0])
    return tf.nest.pack_sequence_as(example, [_plain(value) for value in values])


def _plain(value: Any) -> Any:
    """A value of TensorFlow's as Python has it."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return [_plain(item) for item in value] if isinstance(value, list) else value
