"""Tasks and mixtures to batches: one global stream, fixed by the seed, that any number of processes can share."""

import dataclasses
import importlib
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data import context, example_tasks, grouping, pipelines, stream
from prompt_tuning.data.choices import model_features, with_choices
from prompt_tuning.data.vocabularies import end_of
from prompt_tuning.errors import ConfigError, DataError, check_count

Batch = dict[str, np.ndarray]
_PREFETCHED_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """What to read and how to batch it; the fields and names are T5X's.

    Attributes:
      mixture_or_task_name: A registered SeqIO task or mixture.
      task_feature_lengths: Tokens kept of each feature, for example {"inputs": 512, "targets": 32}. None is possible
        only where SeqIO's Evaluator reads the data: there the longest example decides.
      split: `train`, `validation` or `test`.
      batch_size: Examples in a global batch.
      shuffle: Whether to shuffle.
      seed: Seed of evaluation data that is shuffled; training passes its own.
      use_cached: Whether to read SeqIO's offline cache.
      pack: Whether to pack several examples into a row. Of a model without a prompt, rows are packed as SeqIO packs
        them, `batch_size` of them a batch. With a prompt, training takes the same batches as without `pack`, each
        example with its prompt, and lays them into fewer rows (`packing.pack`); evaluation is not packed.
      length_window: Batches of the stream whose examples are sorted by length together, so that each training batch
        holds examples of like length; 1 leaves them as they come.
      choices: Whether the targets of an example are all its answer choices, as `model.choice_losses` wants them; a
        run sets it.
      tasks: The tasks that the model's method tells apart, each by its names: examples then have their task's number
        (`example_tasks.py`). Empty where it tells none apart; a run sets it.
      module: Python module whose import registers the task.
      data_dir: Folder with the original files, instead of the run's (see `context`) or TensorFlow Datasets.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int] | None
    split: str
    batch_size: int
    shuffle: bool = False
    seed: int | None = None
    use_cached: bool = False
    pack: bool = False
    length_window: int = 1
    choices: bool = False
    tasks: tuple[tuple[str, ...], ...] = ()
    module: str | None = None
    data_dir: str | None = None

    def __post_init__(self) -> None:
        """Refuses windows of no batch."""
        check_count("utils.DatasetConfig.length_window", self.length_window, "batches")


def load_task_module(cfg: DatasetConfig) -> None:
    """Imports the module that registers the configured task, if one is named.

    Args:
      cfg: `module` is used.

    Raises:
      DataError: There is no such module, or it imports one of this package that is not there.
    """
    if not cfg.module:
        return
    try:
        importlib.import_module(cfg.module)
    except ModuleNotFoundError as error:
        # A module that exists and misses a dependency of its own keeps its own error.
        is_other = not (cfg.module + ".").startswith(f"{error.name}.")
        if is_other and (error.name or "").startswith("prompt_tuning."):
            here = pathlib.Path(__file__).parents[1]
            files = [path.relative_to(here.parent) for path in here.rglob("*.py")]
            raise DataError(
                f"{cfg.module} imports a module that prompt_tuning does not have",
                got=error.name,
                expected="a module of this version",
                fix="correct the import",
                name=error.name,
                candidates=[".".join(file.with_suffix("").parts) for file in files],
            ) from error
        if is_other:
            raise
        raise DataError(
            "The module of tasks cannot be imported",
            got=cfg.module,
            expected="an importable module that registers SeqIO tasks",
            fix="set MIXTURE_OR_TASK_MODULE to such a module and put it on PYTHONPATH",
            name=cfg.module,
            candidates=[
                "prompt_tuning.tasks.super_glue",
                "prompt_tuning.tasks.glue",
                "prompt_tuning.data.super_glue",
                "prompt_tuning.data.glue",
            ],
        ) from error


def get_task(cfg: DatasetConfig) -> seqio.Task | seqio.Mixture:
    """Returns the configured task or mixture.

    Args:
      cfg: `module` is imported first.

    Raises:
      DataError: The module or the name is unknown.
    """
    load_task_module(cfg)
    name = cfg.mixture_or_task_name
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if name in known:
        return seqio.get_mixture_or_task(name)
    if cfg.module:
        fix = (
            f"correct MIXTURE_OR_TASK_NAME, or name the module that registers it (now {cfg.module})"
        )
    else:
        fix = "set MIXTURE_OR_TASK_MODULE to the module that registers it, for example 'prompt_tuning.tasks.super_glue'"
    raise DataError(
        "Unknown task or mixture",
        got=name,
        expected=f"one of the {len(known)} registered names",
        fix=fix,
        name=name,
        candidates=known,
    )


def eval_task_names(cfg: DatasetConfig) -> list[str]:
    """Returns the tasks of the configured mixture (or the task itself) that have the split, in order.

    Args:
      cfg: The mixture and the split.

    Raises:
      DataError: None of them has it.
    """
    tasks = seqio.get_subtasks(get_task(cfg))
    names = [task.name for task in tasks if cfg.split in task.splits]
    if not names:
        splits = splits_of(cfg)
        raise DataError(
            f"{cfg.mixture_or_task_name!r} has no such split",
            got=cfg.split,
            expected=f"one of {', '.join(splits)}",
            fix="correct the split",
            name=cfg.split,
            candidates=splits,
        )
    return names


def splits_of(cfg: DatasetConfig) -> list[str]:
    """Returns the splits that the configured task, or a task of the mixture, has, in order."""
    tasks = seqio.get_subtasks(get_task(cfg))
    return sorted({str(split) for task in tasks for split in task.splits})


def train_batches(cfg: DatasetConfig, *, seed: int, start_example: int = 0) -> Iterator[Batch]:
    """Returns the endless stream of training batches.

    The stream of examples is a function of `cfg` and `seed` alone. Its position is the number of examples (of rows,
    where packed) consumed so far, so that `start_example = steps * batch_size` continues exactly where a run stopped.
    Every process gets the same global batches and gives its devices their slices. With `length_window`, where batches
    hold examples of like length, `start_example` is a multiple of the batch size.

    Args:
      cfg: What to read.
      seed: Seed of the order and of random preprocessing.
      start_example: Examples of the stream to leave out at its start.

    Returns:
      Batches {encoder_input_tokens [B, L], decoder_input_tokens [B, T], decoder_target_tokens [B, T],
      decoder_loss_weights [B, T]} int32, with segment ids and positions where packed, with `types.TASK` [B] where
      tasks are told apart, and as `choices.model_features` makes them where choices are read.

    Raises:
      DataError: The task or its data is missing.
    """
    # A run that goes on makes its window again, and leaves out the batches that it has seen.
    window = cfg.length_window * cfg.batch_size
    seen = start_example % window if cfg.length_window > 1 else 0
    ds = _examples(cfg, num_epochs=None, seed=seed, start_example=start_example - seen)
    ds = ds.batch(window, drop_remainder=True).prefetch(_PREFETCHED_BATCHES)
    if cfg.length_window == 1:
        return _batches(ds, cfg)
    first = (start_example - seen) // window
    found = grouping.grouped(_batches(ds, cfg), cfg.batch_size, seed=seed, first=first)
    return itertools.islice(found, seen // cfg.batch_size, None)


def eval_batches(cfg: DatasetConfig, *, num_batches: int | None = None) -> Iterator[Batch]:
    """Returns one pass over a split in batches of one fixed size.

    Args:
      cfg: What to read; in its own order, unless `cfg.shuffle` says otherwise.
      num_batches: Batches to stop after; None for the whole split.

    Returns:
      Batches as in `train_batches`. The last one is filled up with rows of zeros, whose loss weights are zero.

    Raises:
      DataError: The task or its data is missing.
    """
    ds = _examples(cfg, num_epochs=1, seed=cfg.seed or 0)
    ds = ds.batch(cfg.batch_size, drop_remainder=False)
    if num_batches is not None:
        ds = ds.take(num_batches)
    return (pad_batch(batch, cfg.batch_size) for batch in _batches(ds.prefetch(1), cfg))


def pad_batch(batch: Mapping[str, np.ndarray], batch_size: int) -> Batch:
    """Returns `batch` with rows of zeros behind its own, so that it has `batch_size` rows.

    Args:
      batch: Arrays [n, …] with n <= batch_size.
      batch_size: Rows of the result.
    """
    return {
        name: np.pad(x, [(0, batch_size - len(x))] + [(0, 0)] * (x.ndim - 1))
        for name, x in batch.items()
    }


def _batches(ds: tf.data.Dataset, cfg: DatasetConfig) -> Iterator[Batch]:
    """Yields the elements as numpy arrays, the choices of a row apart."""
    elements = pipelines.numpy_iterator(ds)
    end = end_of(get_task(cfg).output_features["targets"].vocabulary) if cfg.choices else None
    while True:
        with pipelines.readable_errors():
            batch = next(elements, None)
        if batch is None:
            return
        yield batch if end is None else model_features(batch, end)


def _examples(
    cfg: DatasetConfig, *, num_epochs: int | None, seed: int, start_example: int = 0
) -> tf.data.Dataset:
    """Returns the stream of single examples (packed: of rows) with the model's features, from `start_example` on."""
    how = {"num_epochs": num_epochs, "seed": seed, "start_example": start_example}
    return pipelines.made(lambda: _make_examples(cfg, **how))


def _make_examples(
    cfg: DatasetConfig, *, num_epochs: int | None, seed: int, start_example: int
) -> tf.data.Dataset:
    """Makes what `_examples` returns."""
    lengths = check_lengths(cfg.task_feature_lengths)
    provider = get_task(cfg)
    how = {"split": cfg.split, "use_cached": cfg.use_cached, "shuffle": cfg.shuffle, "seed": seed}
    # Rows are counted once examples are packed, which takes the length of each one before.
    skipped = 0 if cfg.pack else start_example
    with context.overriding(data_dir=cfg.data_dir):
        if num_epochs is None:
            form = with_choices if cfg.choices else None
            ds = stream.endless(provider, lengths, start=skipped, form=form, tasks=cfg.tasks, **how)
        else:
            if cfg.choices and isinstance(provider, seqio.Task):
                provider = with_choices(provider)
            ds = example_tasks.read_once(provider, lengths, cfg.tasks, **how)
    ds = pipelines.to_model_features(ds, lengths, pack=cfg.pack, with_task=bool(cfg.tasks))
    ds = ds.skip(start_example - skipped)
    options = tf.data.Options()
    options.deterministic = True
    return ds.with_options(options)


def check_lengths(lengths: object, features: Iterable[str] = ()) -> dict[str, int]:
    """Returns the configured lengths as a plain dict.

    Args:
      lengths: TASK_FEATURE_LENGTHS, in tokens.
      features: What must have a length.

    Raises:
      ConfigError: There are none, or one is not a positive whole number.
    """
    if not isinstance(lengths, Mapping) or not lengths:
        raise ConfigError(
            "The lengths of the features, TASK_FEATURE_LENGTHS, are not given",
            got=lengths,
            expected='a dict such as {"inputs": 512, "targets": 32}, in tokens',
            fix="bind TASK_FEATURE_LENGTHS",
        )
    for name in features:
        check_count(f"TASK_FEATURE_LENGTHS[{name!r}]", lengths.get(name), "tokens")
    return dict(lengths)
