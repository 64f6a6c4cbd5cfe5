"""What is checked of a run's data before anything is compiled: every task of a mixture, on a sample of its examples."""

import dataclasses
import itertools
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import seqio

from prompt_tuning.data import context, pipelines, registry, samples, tallies, verbalizers
from prompt_tuning.data.batches import DatasetConfig, check_lengths, eval_task_names, get_task
from prompt_tuning.data.choices import check_choices, with_choices
from prompt_tuning.data.example_tasks import check_known
from prompt_tuning.data.vocabularies import check_vocabulary
from prompt_tuning.errors import DataError, check_count


def check_dataset(
    cfg: DatasetConfig, *, trains: bool = False, needs_targets: bool = True
) -> list[str]:
    """Checks everything that can be wrong with the data, before anything is compiled.

    Reads some examples of each task.

    Args:
      cfg: The configuration of a run's training, evaluation or inference data.
      trains: Whether the data is trained on, in the shares of a mixture.
      needs_targets: Whether answers are learnt, compared or scored.

    Returns:
      Warnings: what may be meant or not, such as targets that are cut.

    Raises:
      ConfigError: The lengths or the batch size are wrong.
      DataError: The module, the task, the split, the vocabulary, a label or the data itself is wrong.
    """
    provider = get_task(cfg)
    names = eval_task_names(cfg)
    check_known(names, cfg.tasks)
    if trains and isinstance(provider, seqio.Mixture):
        tasks = [task for task in provider.tasks if task.name in names]
        registry.check_rates(provider.name, {t.name: provider.get_rate(t) for t in tasks})
    features = sorted(provider.output_features)
    lengths = cfg.task_feature_lengths
    if lengths is not None:
        lengths = check_lengths(lengths, features)
    check_count("BATCH_SIZE", cfg.batch_size, "examples")
    for name in features:
        check_vocabulary(provider.output_features[name].vocabulary)
    num = max(tallies.SAMPLE // len(names), tallies.SAMPLE_OF_EACH)
    # Sets of few shots are looked at whole.
    num = tallies.SAMPLE if cfg.choices else num

    def check(name: str) -> list[str] | DataError:
        try:
            return check_task(name)
        except DataError as error:
            # Of hundreds of tasks a user wants to know at once which of them fail.
            if len(names) == 1:
                raise
            return error

    def check_task(name: str) -> list[str]:
        task = seqio.TaskRegistry.get(name)
        if lengths is not None and "targets" in task.output_features:
            verbalizers.check_labels(
                name, feature=task.output_features["targets"], length=lengths["targets"]
            )
        # Only SeqIO's Evaluator reads without lengths, and it leaves out tasks without metrics.
        if lengths is None and not task.metric_fns and not task.metric_objs:
            return []
        of_task = dataclasses.replace(cfg, mixture_or_task_name=name)
        try:
            return _tally(of_task, lengths, num).check(needs_targets=needs_targets)
        # A task of T0's has answers in characters that T5's vocabulary lacks, and is one of hundreds.
        except tallies.AlikeError as error:
            if trains and len(names) > 1:
                return [str(error)]
            raise

    # Mixtures have hundreds of tasks, and a pipeline of TensorFlow takes a tenth of a second to be made.
    with context.overriding(data_dir=cfg.data_dir), futures.ThreadPoolExecutor() as pool:
        found = dict(zip(names, pool.map(check, names), strict=True))
    failed = {name: error for name, error in found.items() if isinstance(error, DataError)}
    if len(failed) > 1:
        raise tallies.several_fail(failed, len(names))
    for error in failed.values():
        raise error
    warnings = [some for some in found.values() if not isinstance(some, DataError)]
    return [text for some in warnings for text in some]


def _tally(cfg: DatasetConfig, lengths: Mapping[str, int] | None, num: int) -> tallies.Tally:
    """Counts over the first examples of the split of one task; raises DataError if there are none."""
    task = seqio.TaskRegistry.get(cfg.mixture_or_task_name)
    whole = tallies.whole_lengths(task, lengths)
    task = with_choices(task) if cfg.choices else task
    tally = tallies.Tally(
        f"{cfg.split} of {task.name!r}",
        {name: feature.vocabulary for name, feature in task.output_features.items()},
        lengths,
    )
    with pipelines.readable_errors():
        examples = None
        # Of one task alone more examples are looked at, which a pipeline makes in less time.
        if num < tallies.SAMPLE and whole is None and not cfg.use_cached:
            examples = _first(task, cfg.split, num)
        if examples is None:
            ds = pipelines.made(
                lambda: task.get_dataset(
                    whole, split=cfg.split, use_cached=cfg.use_cached, shuffle=False, num_epochs=1
                )
            )
            examples = pipelines.numpy_iterator(ds.take(num))
        for number, example in enumerate(examples):
            if cfg.choices and lengths:
                check_choices(example, number, task, cfg.split, lengths["targets"])
            tally.add(example)
    if not tally.num:
        raise DataError(
            f"Split {cfg.split!r} of task {task.name!r} is empty",
            got=0,
            expected="at least one example after preprocessing",
            fix="choose another split or correct the data",
        )
    return tally


def _first(task: seqio.Task, split: str, num: int) -> list[dict[str, Any]] | None:
    """The first examples of a task, where they are to be had without a pipeline and nothing is wrong with them."""
    try:
        found = samples.first(task, split)
        return None if found is None else list(itertools.islice(found, num))
    # A pipeline says what it is, as it would in the run.
    except Exception:
        return None
