"""SeqIO's Evaluator, set up so that it leaves the files and tags that T5X leaves."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import seqio

from prompt_tuning.data import batches, context, example_tasks, pipelines
from prompt_tuning.data.benchmarks import leaderboard
from prompt_tuning.errors import check_count


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig:
    """How much is evaluated and written down.

    Attributes:
      num_examples: Examples taken from each task. None: all.
      json_write_n_results: Predictions written per task. None: all; 0: none.
      use_memory_cache: Whether evaluation examples stay in memory between evaluations.
    """

    num_examples: int | None = None
    json_write_n_results: int | None = None
    use_memory_cache: bool = True

    def __post_init__(self) -> None:
        """Checks the numbers."""
        check_count("seqio.Evaluator.num_examples", self.num_examples, "examples", none_means="all")
        check_count(
            "JSON_WRITE_N_RESULTS",
            self.json_write_n_results,
            "predictions",
            at_least=0,
            none_means="all",
        )


def make_evaluator(
    cfg: batches.DatasetConfig,
    *,
    log_dir: str | None,
    num_examples: int | None = None,
    json_write_n_results: int | None = None,
    use_memory_cache: bool = True,
) -> seqio.Evaluator | None:
    """Returns an Evaluator of the task or of each task of the mixture.

    Args:
      cfg: Task, split, lengths (None: the longest example decides) and seed.
      log_dir: Where `{task}-metrics.jsonl`, `{task}-{step:06}.jsonl` and the TensorBoard runs `{task}/` with tags
        `eval/{metric}` go. None writes nothing: every process but the first passes None.
      num_examples: Examples evaluated, from the start of the split; None for all.
      json_write_n_results: Predictions written per evaluation; None for all.
      use_memory_cache: Whether the tokenised split is kept in memory between evaluations.

    Returns:
      The Evaluator, or None if no task has a metric.

    Raises:
      DataError: If the task is unknown or the split is empty.
    """
    task = batches.get_task(cfg)
    if not any(t.metric_fns or t.metric_objs for t in seqio.get_subtasks(task)):
        return None
    loggers: list[Callable[..., Any]] = []
    if log_dir is not None:
        loggers = [
            seqio.TensorBoardLogger,
            functools.partial(seqio.JSONLogger, write_n_results=json_write_n_results),
        ]
    with context.overriding(data_dir=cfg.data_dir), pipelines.readable_errors():
        evaluator = functools.partial(
            seqio.Evaluator,
            mixture_or_task_name=cfg.mixture_or_task_name,
            feature_converter=pipelines.converter(),
            eval_split=cfg.split,
            use_cached=cfg.use_cached,
            seed=cfg.seed if cfg.seed is not None else 42,
            sequence_length=cfg.task_feature_lengths,
            num_examples=num_examples,
            logger_cls=loggers,  # pyright: ignore[reportArgumentType]
            log_dir=log_dir,
            use_memory_cache=use_memory_cache,
            async_compute_metrics=False,
        )
        made = pipelines.made(evaluator)
    example_tasks.number_evaluated(made, cfg.tasks)
    return made


def run_evaluator(
    evaluator: seqio.Evaluator,
    *,
    predict_fn: Callable[..., Any],
    score_fn: Callable[..., Any],
    predict_with_aux_fn: Callable[..., Any],
    step: int,
) -> dict[str, dict[str, float]]:
    """Evaluates every task and returns its scalar metrics; where a benchmark is complete, also logs its average.

    Args:
      evaluator: From `make_evaluator`.
      predict_fn: Enumerated dataset -> [(index, token ids)].
      score_fn: Enumerated dataset -> [(index, log-likelihood)].
      predict_with_aux_fn: As `predict_fn`, with a dict of per-example values.
      step: Written into file names and TensorBoard.

    Returns:
      `{task: {metric: value}}`, with `leaderboard.averages` as if they were tasks; T5's metrics are in percent.
    """
    future, _ = evaluator.evaluate(
        compute_metrics=True,
        step=step,
        predict_fn=predict_fn,
        score_fn=score_fn,
        predict_with_aux_fn=predict_with_aux_fn,
    )
    results: dict[str, dict[str, float]] = {}
    for task, values in (future.result() or {}).items():
        results[task] = {name: s for name, v in values.items() if (s := _scalar(v)) is not None}
    averages = leaderboard.averages(results)
    for name, values in averages.items():
        scalars = {metric: seqio.metrics.Scalar(value) for metric, value in values.items()}
        for logger in evaluator.loggers:
            logger(name, step, scalars, None, None, None)
    return {**results, **averages}


def default_metric(results: Mapping[str, Mapping[str, float]]) -> tuple[str, float] | None:
    """Returns the name and value that checkpoints are selected by, None if there is no scalar metric.

    Args:
      results: `{task: {metric: value}}`, higher is better; averages of benchmarks do not count again.

    Returns:
      The mean over tasks of each task's mean over its metrics; the name says which metrics entered.

    Source: Lester et al. 2021, section 3: the dataset's default metric on dev, the average if there are several.
    """
    averages = (leaderboard.SUPER_GLUE_AVERAGE, leaderboard.GLUE_AVERAGE)
    measured = {task: m for task, m in results.items() if m and task not in averages}
    means = {task: float(np.mean(list(m.values()))) for task, m in measured.items()}
    if not means:
        return None
    if len(means) == 1:
        (metrics,) = measured.values()
        name = next(iter(metrics)) if len(metrics) == 1 else f"mean({', '.join(metrics)})"
    else:
        name = f"mean over {len(means)} tasks"
    return name, float(np.mean(list(means.values())))


def _scalar(value: Any) -> float | None:
    """A metric value as a float, None for text, images and the like."""
    value = getattr(value, "value", value)
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return float(array) if array.ndim == 0 else None
