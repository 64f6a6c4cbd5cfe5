"""The training step: gradients by the trainable parameters only."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from prompt_tuning import tree
from prompt_tuning.training.choice_losses import count_choices
from prompt_tuning.training.losses import (
    LossConfig,
    loss_and_metric_sums,
    weights_and_normalizer,
    with_penalty,
)
from prompt_tuning.training.state import TrainState
from prompt_tuning.types import ApplyFn, Batch, PyTree, Schedule

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, PyTree, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    apply_fn: ApplyFn,
    tx: optax.GradientTransformation,
    *,
    learning_rate_fn: Schedule,
    loss_config: LossConfig,
    penalty_fn: Callable[[PyTree], jax.Array | None] = lambda params: None,
    num_microbatches: int = 1,
    num_targets: int | None = None,
    learning_rates_by_regex: Mapping[str, Schedule] | None = None,
) -> TrainStep:
    """Returns the function `train_step(state, frozen, batch) -> (state, metrics)`; the caller compiles it.

    The loss closes over `frozen` and is differentiated by `state.trainable` alone, so no gradient, optimizer slot or
    donated buffer of a frozen parameter exists.

    Args:
      apply_fn: `(params, batch, dropout_rng) -> logits [B, T, V] float32`.
      tx: Optimizer of the trainable parameters.
      learning_rate_fn: Logged beside the metrics; `tx` was made with the same one.
      loss_config: The loss terms.
      penalty_fn: All parameters -> what is added to the loss of a step whatever its batch is; None for nothing.
      num_microbatches: Parts the batch is cut into; their gradients are added. Divides the batch size.
      num_targets: Target positions of a batch before its padding was cut off, which normalisers and metrics count;
        None for those that it has.
      learning_rates_by_regex: Logged as `learning_rate_fn` is.

    Returns:
      The step. Its metrics are the sums of `loss_and_metric_sums` and `with_penalty` plus `grad_norm`, `param_norm` (of
      the updated trainable parameters), `learning_rate` and `learning_rate/REGEX` of each regular expression.
    """
    rates = {f"learning_rate/{r}": fn for r, fn in (learning_rates_by_regex or {}).items()}
    rates["learning_rate"] = learning_rate_fn

    def train_step(state: TrainState, frozen: PyTree, batch: Batch) -> tuple[TrainState, Metrics]:
        weights, normalizer = weights_and_normalizer(batch, loss_config, num_targets)
        counts = count_choices(batch) if loss_config.choices else None

        def loss_fn(trainable, microbatch, microbatch_weights, dropout_rng):
            params = tree.merge(trainable, frozen)
            logits = apply_fn(params, microbatch, dropout_rng)
            of_batch = loss_and_metric_sums(
                logits, microbatch, microbatch_weights, normalizer, loss_config, counts
            )
            return with_penalty(*of_batch, penalty_fn(params), num_microbatches)

        def gradients(microbatch, microbatch_weights, dropout_rng):
            (_, sums), grads = jax.value_and_grad(loss_fn, has_aux=True)(
                state.trainable, microbatch, microbatch_weights, dropout_rng
            )
            return grads, sums

        dropout_rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        if num_microbatches == 1:
            grads, sums = gradients(batch, weights, dropout_rng)
        else:
            parts = interleave((dict(batch), weights), num_microbatches)
            rngs = jax.random.split(dropout_rng, num_microbatches)
            grads, sums = sum_over_scan(
                lambda part: gradients(part[0][0], part[0][1], part[1]), (parts, rngs)
            )

        updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        metrics = {
            **sums,
            "grad_norm": optax.tree.norm(grads),
            "param_norm": optax.tree.norm(trainable),
            **{name: jnp.asarray(fn(state.step), jnp.float32) for name, fn in rates.items()},
        }
        if num_targets is not None:
            metrics["all_tokens"] = jnp.float32(num_targets)
        new_state = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)
        return new_state, metrics

    return train_step


def make_eval_step(apply_fn: ApplyFn, *, loss_config: LossConfig):
    """Returns `eval_step(params, batch) -> metric sums` under teacher forcing, without dropout."""

    def eval_step(params: PyTree, batch: Batch) -> Metrics:
        weights, normalizer = weights_and_normalizer(batch, loss_config)
        counts = count_choices(batch) if loss_config.choices else None
        logits = apply_fn(params, batch, None)
        return loss_and_metric_sums(logits, batch, weights, normalizer, loss_config, counts)[1]

    return eval_step


def interleave(batch: PyTree, num_microbatches: int) -> PyTree:
    """Cuts the leading axis B into [M, B / M]; microbatch m holds rows m, m + M, ….

    Rows are dealt out in turn because a batch sharded over `data` then has each microbatch sharded over all of it.
    """

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)


def sum_over_scan(fn: Callable[[PyTree], PyTree], xs: PyTree) -> PyTree:
    """Returns the sum of `fn(x)` over the leading axis of `xs`, one at a time."""
    shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], xs))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(lambda acc, x: (jax.tree.map(jnp.add, acc, fn(x)), None), zeros, xs)
    return total
