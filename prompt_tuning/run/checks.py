"""What the runs check alike before anything is loaded or compiled."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
from absl import logging

from prompt_tuning import tree
from prompt_tuning.data import batches, context, dataset_checks, made_from, vocabularies
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import is_method
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.start import split_paths
from prompt_tuning.training.trainer import Trainer


def enter(model: EncoderDecoderModel, cfg: batches.DatasetConfig) -> batches.DatasetConfig:
    """Shows registered tasks this run's vocabulary and folder of data; the first thing that a run does.

    Returns:
      `with_tasks`.
    """
    context.set_context(vocabulary=model.output_vocabulary, data_dir=cfg.data_dir)
    return with_tasks(model, cfg)


def as_trained(model: EncoderDecoderModel, cfg: batches.DatasetConfig) -> batches.DatasetConfig:
    """Returns what losses are computed of: `with_tasks`, with all answer choices of an example where they are compared.

    With a prompt, packing is not SeqIO's: the stream stays that of single examples, and evaluation is not packed.

    Raises:
      ConfigError: If such examples are to be packed.
    """
    cfg = with_tasks(model, cfg)
    if cfg.pack and model.choice_losses is not None:
        raise ConfigError(
            "Examples with all their choices cannot be packed",
            got="utils.DatasetConfig.pack = True with choice_losses",
            expected="an example a row",
            fix="bind utils.DatasetConfig.pack = False, or models.EncoderDecoderModel.choice_losses = None",
        )
    is_packed = cfg.pack and model.prompt is None
    return dataclasses.replace(cfg, pack=is_packed, choices=model.choice_losses is not None)


def with_tasks(model: EncoderDecoderModel, cfg: batches.DatasetConfig) -> batches.DatasetConfig:
    """Returns what is read, each example with its task's number where the model's method tells tasks apart.

    Raises:
      ConfigError: If examples with prompts of their own are to be packed.
    """
    method = model.method
    if method is None:
        return cfg
    if cfg.pack and method.differs_by_example:
        raise ConfigError(
            "Examples with prompts of their own cannot be packed",
            got=f"utils.DatasetConfig.pack = True with methods.{type(method).__name__}",
            expected="an example a row",
            fix="bind utils.DatasetConfig.pack = False",
        )
    return dataclasses.replace(cfg, tasks=method.task_names)


def check_model(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, batch_sizes: Sequence[int]
) -> None:
    """Raises the first thing wrong with the vocabularies, with a batch size or with the method.

    Raises:
      ConfigError: If a vocabulary cannot be read or is larger than the model's table, a batch does not divide over the
        devices, or the method finds no place in the model.
    """
    ids = model.config.ids
    for vocabulary in (model.input_vocabulary, model.output_vocabulary):
        vocabularies.check_vocabulary(vocabulary, pad=ids.pad, eos=ids.eos)
    model.check_vocabulary_size()
    _check_method(model)
    for batch_size in batch_sizes:
        partitioner.check_batch_size(batch_size)


def _check_method(model: EncoderDecoderModel) -> None:
    """Raises ConfigError if some of the method finds no place in the model, or two of several act on the same thing."""
    # The latter is told by tracing the model with all of them.
    model.param_shapes  # noqa: B018
    for method in model.method.parts if model.method else ():
        alone = dataclasses.replace(model, module=model.module.clone(method=method))
        method.check([path for path in alone.param_shapes if is_method(path)])


def check_inputs(model: EncoderDecoderModel, cfgs: Iterable[batches.DatasetConfig]) -> None:
    """Raises ConfigError if the method cannot take inputs as long as TASK_FEATURE_LENGTHS let them be."""
    for cfg in cfgs:
        length = (cfg.task_feature_lengths or {}).get("inputs")
        if model.method is not None and length is not None:
            model.method.check_inputs(length)


def check_data(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    cfgs: Sequence[batches.DatasetConfig],
    *,
    trains: bool = False,
) -> None:
    """Raises the first thing wrong with the vocabularies, a batch size or a dataset; warns of what may be meant.

    Args:
      model: The model.
      partitioner: Mesh and axis rules.
      cfgs: Data that is evaluated.
      trains: Whether the first of them is trained on.

    Raises:
      ConfigError: As `check_model` and `check_inputs`.
      DataError: If a task is unknown or a split empty.
    """
    check_model(model, partitioner, [cfg.batch_size for cfg in cfgs])
    check_inputs(model, cfgs)
    if trains:
        # What the method adds to the loss is traced for its errors.
        jax.eval_shape(model.penalty, tree.unflatten(model.param_shapes))
    found = [dataset_checks.check_dataset(cfg, trains=trains and cfg is cfgs[0]) for cfg in cfgs]
    for cfg in cfgs:
        made_from.check_cache(cfg)
    warn(text for warnings in found for text in warnings)


def warn(texts: Iterable[str]) -> None:
    """Logs warnings, each once, in one of the processes."""
    if jax.process_index() == 0:
        for text in dict.fromkeys(texts):
            logging.warning("%s", text)


def check_training(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    trainer: Trainer,
    cfgs: Sequence[batches.DatasetConfig],
    trainable_regex: Sequence[str],
) -> None:
    """Raises the first thing wrong with trainable parameters, vocabularies, data or batch sizes.

    Args:
      model: The model.
      partitioner: Mesh and axis rules.
      trainer: Optimizer, learning rates and microbatches.
      cfgs: Training data, then those of evaluations.
      trainable_regex: Regular expressions over whole parameter paths.

    Raises:
      ConfigError, DataError: As `check_data`; or if nothing is trainable, a microbatch does not divide or a
        learning rate has no parameters of its own.
    """
    # Of a method without a place nothing is trainable, which would be said of TRAINABLE_REGEX.
    _check_method(model)
    trainer.check_paths(split_paths(model, trainable_regex)[0])
    check_microbatches(partitioner, trainer, cfgs[0].batch_size)
    for cfg in cfgs[1:]:
        _check_evaluated(cfg)
    check_data(model, partitioner, cfgs, trains=True)


def _check_evaluated(cfg: batches.DatasetConfig) -> None:
    """Raises DataError if a training run is to evaluate a task that has nothing but its training split."""
    splits = batches.splits_of(cfg)
    if cfg.split not in splits and set(splits) == {"train"}:
        raise DataError(
            f"{cfg.mixture_or_task_name!r} has no such split, and none to evaluate on",
            got=cfg.split,
            expected=f"one of {', '.join(splits)}",
            fix="train without evaluation: --gin.train.train.infer_eval_dataset_cfg=None"
            " --gin.train.train.train_eval_dataset_cfg=None",
        )


def check_microbatches(partitioner: PjitPartitioner, trainer: Trainer, batch_size: int) -> None:
    """Raises ConfigError unless every data replica gets the same number of examples of each microbatch."""
    microbatches = trainer.num_microbatches or 1
    if batch_size % microbatches:
        raise ConfigError(
            "BATCH_SIZE cannot be cut into microbatches",
            got=batch_size,
            expected=f"a multiple of trainer.Trainer.num_microbatches = {microbatches}",
            fix="change either of the two",
        )
    partitioner.check_batch_size(batch_size // microbatches)
