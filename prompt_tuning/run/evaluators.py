"""Evaluation of a run's parameters, by teacher forcing and by decoding."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from prompt_tuning.data import batches, evaluation, pipelines, widths
from prompt_tuning.data.evaluation import EvaluatorConfig
from prompt_tuning.data.widths import Size
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import measured, steps
from prompt_tuning.run.inference import Inference
from prompt_tuning.training.metrics import summarize
from prompt_tuning.training.summary import SummaryWriter
from prompt_tuning.training.trackers import TrackedRun
from prompt_tuning.types import PyTree


class TeacherForcingEval:
    """Loss and token accuracy on dev batches, logged to `training_eval/{task}` for each task of a mixture.

    Args:
      model: The model.
      cfg: Dataset of the dev split.
      partitioner: Where batches live.
      model_dir: The run's directory.
      num_batches: Batches evaluated of each task (EVAL_STEPS).
      before_batch: Called before each batch; may raise.
      tracked: The run in a tracker, which gets the same; None for no tracker.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        cfg: batches.DatasetConfig,
        partitioner: PjitPartitioner,
        model_dir: epath.Path,
        num_batches: int,
        before_batch: Callable[[], None] | None = None,
        tracked: TrackedRun | None = None,
    ):
        """Reads the batches once; they are few and the same at every evaluation."""
        self._partitioner = partitioner
        self._before_batch = before_batch or (lambda: None)
        self._batches: dict[str, list[dict[str, np.ndarray]]] = {}
        self._writers: dict[str, SummaryWriter] = {}
        for task in batches.eval_task_names(cfg):
            task_cfg = dataclasses.replace(cfg, mixture_or_task_name=task)
            read = list(batches.eval_batches(task_cfg, num_batches=num_batches))
            # Sums over target tokens do not depend on which rows share a batch, if none is divided by its own count.
            in_order = isinstance(model.loss_config.loss_normalizing_factor, str)
            self._batches[task] = by_length(read, in_order=in_order)
            folder = f"training_eval/{task}"
            self._writers[task] = SummaryWriter(str(model_dir / folder), tracked, folder)
        self._step = steps.eval_step(model, partitioner)

    def close(self) -> None:
        """Closes the summary writers."""
        for writer in self._writers.values():
            writer.close()

    def run(self, params: PyTree, step: int) -> dict[str, dict[str, float]]:
        """Returns and logs T5X's tags of each task for `params`."""
        return {task: self._run_task(task, params, step) for task in self._batches}

    def _run_task(self, task: str, params: PyTree, step: int) -> dict[str, float]:
        """Evaluates and logs one task."""
        totals: dict[str, float] = {}
        for batch in self._batches[task]:
            self._before_batch()
            with self._partitioner.activate():
                sums = self._step(params, self._partitioner.shard_batch(batch))
            for name, value in jax.device_get(sums).items():
                totals[name] = totals.get(name, 0.0) + float(value)
        tags = summarize(totals, len(self._batches[task]))
        self._writers[task].scalars(step, tags)
        return tags


def by_length(
    read: Sequence[batches.Batch], *, in_order: bool = False
) -> list[dict[str, np.ndarray]]:
    """Returns batches of the same rows, sorted by the length of their inputs, which are cut to a few widths.

    Targets stay as wide as they are: metrics per target token, padding included, count their width.

    Args:
      read: Batches of one shape.
      in_order: Whether rows stay in their batches, which are cut alone.
    """
    rows = {name: np.concatenate([batch[name] for batch in read]) for name in read[0]}
    inputs, targets = rows["encoder_input_tokens"], rows["decoder_target_tokens"]
    sizes = [
        Size(1, widths.width_of(widths.real_length(row), len(row)), 1, targets.shape[1])
        for row in inputs
    ]
    chosen = widths.batches_by_size(sizes, len(inputs) // len(read), in_order=in_order)
    return [
        {
            name: x[positions, : size.inputs]
            if name.startswith("encoder_") and x.ndim > 1
            else x[positions]
            for name, x in rows.items()
        }
        for positions, size in chosen
    ]


class DecodingEval:
    """SeqIO's Evaluator over decoded answers, logged to `inference_eval/`.

    Args:
      model: The model.
      cfg: Dataset; its split is evaluated whole unless `evaluator` limits it.
      partitioner: Where batches live.
      output_dir: Parent of `inference_eval/`.
      evaluator: How much is evaluated and written.
      before_batch: Called before each batch; may raise.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        cfg: batches.DatasetConfig,
        partitioner: PjitPartitioner,
        output_dir: epath.Path,
        evaluator: EvaluatorConfig,
        before_batch: Callable[[], None] | None = None,
    ):
        """Tokenises the split; compiles nothing."""
        # SeqIO's loggers write files of the same names in every process.
        self._output_dir = output_dir if jax.process_index() == 0 else None
        self._evaluator = evaluation.make_evaluator(
            cfg,
            log_dir=str(output_dir / measured.FOLDER) if self._output_dir else None,
            num_examples=evaluator.num_examples,
            json_write_n_results=evaluator.json_write_n_results,
            use_memory_cache=evaluator.use_memory_cache,
        )
        if self._evaluator is not None and model.method is not None:
            # Without TASK_FEATURE_LENGTHS the longest example decides, which is known only now.
            (length,) = self._evaluator.model_feature_shapes["encoder_input_tokens"]
            model.method.check_inputs(length)
        self._inference = Inference(model, partitioner, cfg.batch_size, before_batch)

    def run(self, params: PyTree, step: int) -> dict[str, dict[str, float]]:
        """Returns and logs `{task: {metric: value}}` and averages over benchmarks; empty if no task has a metric."""
        if self._evaluator is None:
            return {}
        results = evaluation.run_evaluator(
            self._evaluator,
            predict_fn=lambda ds: self._inference.predict(params, pipelines.numpy_iterator(ds)),
            score_fn=lambda ds: self._inference.score(params, pipelines.numpy_iterator(ds)),
            predict_with_aux_fn=lambda ds: self._inference.predict_with_aux(
                params, pipelines.numpy_iterator(ds)
            ),
            step=step,
        )
        if self._output_dir:
            measured.seal(self._output_dir)
        return results


def format_metrics(metrics: dict[str, Any]) -> str:
    """Returns `name=value` pairs with at most four significant decimals."""
    return " ".join(f"{name}={np.round(value, 4)}" for name, value in metrics.items())
