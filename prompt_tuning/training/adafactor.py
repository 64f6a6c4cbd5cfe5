"""Adafactor as T5X runs it, put together from stock Optax transformations.

Two things differ from a plain `optax.adafactor(...)`: the decay of the second moments may start at a restored step,
and parameters of scanned layers are treated one layer at a time.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError, check_number
from prompt_tuning.params import layouts
from prompt_tuning.types import PyTree, Schedule

_UNSTACKED = "unstacked"


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Settings of Adafactor with T5X's names, defaults and arithmetic.

    Second moments decay by `1 - t ** -decay_rate` with `t = updates applied + 1 + restored_step - step_offset`.
    T5X restores the step of the pre-trained checkpoint into the optimizer, so the authors' prompt tuning began at
    `t = 1_100_001` with second moments of zero: raw updates are hundreds of times too large and the clip binds on
    every step. `restored_step=1_100_000` does the same; 0 starts Adafactor afresh.

    Attributes:
      decay_rate: Exponent of the decay, in (0, 1].
      restored_step: Step that T5X would have restored from the checkpoint into the optimizer; the second moments
        start at zero. None restores them too, with their step, where the initial checkpoint has them, T5X's or of a run
        of this program that trained all of these parameters, and is 0 where it has none.
      multiply_by_parameter_scale: Multiply each update by the root mean square of its parameter.
      weight_decay_rate: Share of each parameter removed per update, not scaled by the learning rate; None for none.
      clipping_threshold: Largest root mean square of an update before the learning rate; None for no clipping.
      factored: Keep row and column means of the second moments where both dimensions are large.
      min_dim_size_to_factor: Both of the two largest dimensions must have this size to be factored. This holds for
        a prompt too: one of 128 tokens or more is factored, whatever T5X's logical factor rules say.
      epsilon1: Added to squared gradients.
      epsilon2: Smallest root mean square that `multiply_by_parameter_scale` uses.
      step_offset: First step of the decay.
      global_norm_clip_threshold: Largest norm of all gradients together, before anything else; None for no clipping.

    Source:
      t5x:t5x/adafactor.py; Shazeer and Stern 2018, arXiv 1804.04235.
    """

    decay_rate: float = 0.8
    restored_step: int | None = 0
    multiply_by_parameter_scale: bool = True
    weight_decay_rate: float | None = None
    clipping_threshold: float | None = 1.0
    factored: bool = True
    min_dim_size_to_factor: int = 128
    epsilon1: float = 1e-30
    epsilon2: float = 1e-3
    step_offset: int = 0
    global_norm_clip_threshold: float | None = None

    def __post_init__(self):
        check_number("Adafactor.decay_rate", self.decay_rate, "(0, 1]")
        check_number(
            "Adafactor.clipping_threshold", self.clipping_threshold, "(0, inf)", none_means="none"
        )
        check_number(
            "Adafactor.global_norm_clip_threshold",
            self.global_norm_clip_threshold,
            "(0, inf)",
            none_means="none",
        )
        check_number(
            "Adafactor.weight_decay_rate", self.weight_decay_rate, "[0, 1)", none_means="none"
        )
        if self.restored_step is not None and self.step_offset > self.restored_step:
            # t would be 0 or negative, and the second moments NaN from the first update.
            raise ConfigError(
                "Adafactor.step_offset",
                got=self.step_offset,
                expected=f"at most restored_step = {self.restored_step}",
                fix="set step_offset = 0, or restored_step to the step of the initial checkpoint",
            )

    def make(
        self, learning_rate: Schedule, by_regex: Mapping[str, Schedule] | None = None
    ) -> optax.GradientTransformation:
        """Returns the transformation that these settings describe.

        Every layer of stacked parameters is clipped, scaled and factored on its own, so scanned and unscanned layers
        train alike.

        The result is pure: `tx.init` and `tx.update(grads, opt_state, params)` run inside `jax.jit`, and the state
        holds arrays only, so it can be donated. Parameters and gradients are float32 and so is the state. The state
        has the size of the parameters, less where they are factored; give it the trainable tree alone.

        Args:
          learning_rate: Called with the number of updates applied so far, from 0, whatever `restored_step` is;
            `schedules.counted_from` adds it, as T5X does.
          by_regex: Regular expression over parameter paths -> learning rate of those that it matches in full, called
            alike.

        Returns:
          `tx`, whose updates are added to the parameters (`optax.apply_updates`).
        """
        parts = [
            optax.scale_by_factored_rms(
                factored=self.factored,
                decay_rate=self.decay_rate,
                step_offset=self.step_offset - (self.restored_step or 0),
                min_dim_size_to_factor=self.min_dim_size_to_factor,
                epsilon=self.epsilon1,
            )
        ]
        if self.clipping_threshold is not None:
            parts.append(optax.clip_by_block_rms(self.clipping_threshold))
        parts.append(_scale_by_learning_rates(learning_rate, by_regex or {}))
        if self.multiply_by_parameter_scale:
            parts.append(optax.scale_by_param_block_rms(self.epsilon2))
        if self.weight_decay_rate is not None:
            # After the learning rate: T5X multiplies the parameter by (1 - rate) at any learning rate.
            parts.append(optax.add_decayed_weights(self.weight_decay_rate))
        parts.append(optax.scale(-1.0))
        by_layer = _one_layer_at_a_time(optax.chain(*parts))
        if self.global_norm_clip_threshold is None:
            return by_layer
        return _clipped(by_layer, self.global_norm_clip_threshold)


def _scale_by_learning_rates(
    learning_rate: Schedule, by_regex: Mapping[str, Schedule]
) -> optax.GradientTransformation:
    """Multiplies each update by the learning rate of its parameter; the state counts updates for all of them."""
    plain = optax.scale_by_learning_rate(learning_rate, flip_sign=False)
    if not by_regex:
        return plain
    schedules = [(tree.match_any([regex]), schedule) for regex, schedule in by_regex.items()]

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        def scaled(path: str, leaf: jax.Array) -> jax.Array:
            rate = next((s for is_of, s in schedules if is_of(path)), learning_rate)
            return leaf * jnp.asarray(rate(state.count), leaf.dtype)

        _, counted = plain.update(updates, state, params)
        return tree.map_with_path(scaled, updates), counted

    return optax.GradientTransformation(plain.init, update)


def _clipped(tx: optax.GradientTransformation, largest_norm: float) -> optax.GradientTransformation:
    """Applies `tx` to gradients whose norm, over all parameters together, is cut to `largest_norm`."""
    clip = optax.clip_by_global_norm(largest_norm)

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        clipped, _ = clip.update(updates, clip.init(params))
        return tx.update(clipped, state, params)

    # Clipping has no state: that of `tx` stays what it is.
    return optax.GradientTransformation(tx.init, update)


def _one_layer_at_a_time(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies `tx` to each layer of stacked parameters as if the layers were parameters of their own."""

    def init(params: PyTree) -> PyTree:
        return {
            name: (tx.init if name == _UNSTACKED else jax.vmap(tx.init))(group)
            for name, group in _by_number_of_layers(params).items()
        }

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        grad_groups = _by_number_of_layers(updates)
        flat, new_state = {}, {}
        for name, group in _by_number_of_layers(params).items():
            update_group = tx.update if name == _UNSTACKED else jax.vmap(tx.update)
            folded, new_state[name] = update_group(grad_groups[name], state[name], group)
            flat.update(tree.flatten(folded))
        for path, param in tree.flatten(params).items():
            if layouts.is_stacked(path):
                apart = jnp.moveaxis(param, layouts.LAYERS_AXIS, 0).shape
                flat[path] = jnp.moveaxis(flat[path].reshape(apart), 0, layouts.LAYERS_AXIS)
        return tree.unflatten(flat), new_state

    return optax.GradientTransformation(init, update)


def _by_number_of_layers(params: PyTree) -> dict[str, PyTree]:
    """Groups leaves by how many layers they stack, named as the groups' states are; stacked ones as [layers, ...]."""
    groups: dict[str, dict[str, jax.Array]] = {}
    for path, leaf in tree.flatten(params).items():
        name = _UNSTACKED
        if layouts.is_stacked(path):
            layers = leaf.shape[layouts.LAYERS_AXIS]
            # Scanned attention keeps heads and their width apart; the unscanned kernel, and so the factoring of its
            # second moments, joins them.
            shape = layouts.layer_shape(path, leaf.shape)
            leaf = jnp.moveaxis(leaf, layouts.LAYERS_AXIS, 0).reshape(layers, *shape)
            name = f"layers_{layers}"
        groups.setdefault(name, {})[path] = leaf
    return {name: tree.unflatten(group) for name, group in groups.items()}
