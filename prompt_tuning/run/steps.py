"""What runs on the devices, as it is compiled: the train, evaluation, decoding and scoring steps with their shardings.

Runs and `prompt-tuning plan` both take them from here, so that what is planned is what runs.
"""

import ctypes
import functools
from typing import Any

import jax
import optax

from prompt_tuning.data.batch_shapes import BatchShapes
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run.arrays import shardings_of
from prompt_tuning.training.step import make_eval_step, make_train_step
from prompt_tuning.training.trainer import Trainer
from prompt_tuning.types import PyTree

_CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


def train_step(
    model: EncoderDecoderModel,
    partitioner: PjitPartitioner,
    trainer: Trainer,
    tx: optax.GradientTransformation,
    state: PyTree,
    shapes: BatchShapes | None = None,
) -> Any:
    """Returns the jitted `train_step(state, frozen, batch) -> (state, metrics)`, which reuses the state's memory.

    Args:
      model: The model.
      partitioner: The mesh that the step runs on.
      trainer: Learning rates and microbatches.
      tx: The trainer's optimizer.
      state: The state, or its abstract arrays; the new one has the same shardings.
      shapes: What cuts the batches; None for batches that are not cut.
    """
    step = make_train_step(
        functools.partial(model.apply, widths=shapes and shapes.widths),
        tx,
        learning_rate_fn=trainer.learning_rate_fn,
        learning_rates_by_regex=trainer.learning_rates_by_regex,
        loss_config=model.loss_config,
        penalty_fn=model.penalty,
        num_microbatches=trainer.num_microbatches or 1,
        num_targets=shapes and shapes.num_targets,
    )
    out_shardings = (shardings_of(state), partitioner.replicated)
    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def compiled(jitted: Any, *args: Any) -> Any:
    """Returns the program of a jitted function for the shapes of its arguments, without what compiling it left behind.

    Args:
      jitted: The function.
      *args: Its arguments, or abstract arrays like them.
    """
    # XLA's default for CPUs begins whatever could begin, what is to be computed a second time long before it is needed.
    options = _CPU_OPTIONS if jax.default_backend() == "cpu" else None
    program = jitted.lower(*args).compile(compiler_options=options)
    # glibc keeps what was freed, by the compiler and by what came before it: hundreds of MiB in small pieces, of which
    # the program's own memory could have none. Where the C library is not glibc, there is nothing to call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return program


def bytes_of(compiled: Any) -> int:
    """Returns the memory that a compiled program takes on a device: arguments, results and what lies between.

    Arguments that it reuses count once. What it has in use at most at once is less; not every backend tells that.
    """
    memory = compiled.memory_analysis()
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return kept + memory.temp_size_in_bytes


def eval_step(model: EncoderDecoderModel, partitioner: PjitPartitioner) -> Any:
    """Returns the jitted `eval_step(params, batch) -> metric sums` under teacher forcing."""
    step = make_eval_step(model.apply, loss_config=model.loss_config)
    return jax.jit(step, out_shardings=partitioner.replicated)


def predict_step(model: EncoderDecoderModel, partitioner: PjitPartitioner) -> Any:
    """Returns the jitted `predict(params, batch, max_decode_length) -> (tokens, aux)`."""
    return jax.jit(model.predict, out_shardings=partitioner.replicated, static_argnums=2)


def score_step(
    model: EncoderDecoderModel, partitioner: PjitPartitioner, *, compares: bool = False
) -> Any:
    """Returns the jitted `score(params, batch) -> log-likelihoods of target tokens [B, G, T]`, as `score_targets`."""
    score = (
        functools.partial(model.score_targets, compares=True) if compares else model.score_targets
    )
    return jax.jit(score, out_shardings=partitioner.replicated)
