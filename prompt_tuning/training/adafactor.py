"""Adafactor as T5X runs it, put together from stock Optax transformations.

Two things differ from a plain `optax.adafactor(...)`: the decay of the second moments may start at a restored step,
and parameters of scanned layers are treated one layer at a time.
"""

import dataclasses
import math
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.types import PyTree, Schedule

# Parameter path -> axis along which layers are stacked, None where the parameter belongs to one layer.
LayerAxis = Callable[[str], int | None]

_STACKED = re.compile(r"(?:^|/)(?:encoder/encoder|decoder/decoder)/")


def stacked_layer_axis(path: str) -> int | None:
    """Returns 1 for parameters of T5X's scanned layers (`encoder/encoder/…`), None for all others.

    Args:
      path: `/`-joined path of a parameter.

    Returns:
      The axis of the parameter along which layers are stacked. T5X stacks kernels, norm scales and relative biases
      alike along axis 1.

    Source:
      t5x:t5x/examples/scalable_t5/network.py (`param_scan_axis=1`).
    """
    return 1 if _STACKED.search(path) else None


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

    def __post_init__(self):
        if not 0.0 < self.decay_rate <= 1.0:
            raise ConfigError(
                "Adafactor.decay_rate",
                got=self.decay_rate,
                expected="a number in (0, 1]",
                fix="use T5's 0.8",
            )
        if self.restored_step is not None and self.step_offset > self.restored_step:
            # t would be 0 or negative, and the second moments NaN from the first update.
            raise ConfigError(
                "Adafactor.step_offset",
                got=self.step_offset,
                expected=f"at most restored_step = {self.restored_step}",
                fix="set step_offset = 0, or restored_step to the step of the initial checkpoint",
            )
        if self.clipping_threshold is not None and self.clipping_threshold <= 0.0:
            raise ConfigError(
                "Adafactor.clipping_threshold",
                got=self.clipping_threshold,
                expected="a positive number or None",
                fix="use T5's 1.0, or None for no clipping",
            )
        if self.weight_decay_rate is not None and not 0.0 <= self.weight_decay_rate < 1.0:
            raise ConfigError(
                "Adafactor.weight_decay_rate",
                got=self.weight_decay_rate,
                expected="a number in [0, 1) or None",
                fix="use the paper's 1e-5, or None for no decay",
            )

    def make(
        self, learning_rate: Schedule, *, layer_axis: LayerAxis = stacked_layer_axis
    ) -> optax.GradientTransformation:
        """Returns the transformation that these settings describe.

        The result is pure: `tx.init` and `tx.update(grads, opt_state, params)` run inside `jax.jit`, and the state
        holds arrays only, so it can be donated. Parameters and gradients are float32 and so is the state. The state
        has the size of the parameters, less where they are factored; give it the trainable tree alone.

        Args:
          learning_rate: Called with the number of updates applied so far, from 0, whatever `restored_step` is;
            `schedules.counted_from` adds it, as T5X does.
          layer_axis: Tells which parameters stack layers, and along which axis. Every layer of these is clipped,
            scaled and factored on its own, so scanned and unscanned layers train alike.

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
        parts.append(optax.scale_by_learning_rate(learning_rate, flip_sign=False))
        if self.multiply_by_parameter_scale:
            parts.append(optax.scale_by_param_block_rms(self.epsilon2))
        if self.weight_decay_rate is not None:
            # After the learning rate: T5X multiplies the parameter by (1 - rate) at any learning rate.
            parts.append(optax.add_decayed_weights(self.weight_decay_rate))
        parts.append(optax.scale(-1.0))
        return _one_layer_at_a_time(optax.chain(*parts), layer_axis)


def _one_layer_at_a_time(
    tx: optax.GradientTransformation, layer_axis: LayerAxis
) -> optax.GradientTransformation:
    """Applies `tx` to each layer of stacked parameters as if the layers were parameters of their own."""

    def init(params: PyTree) -> PyTree:
        groups = _by_number_of_layers(params, layer_axis)
        return {
            _name(layers): (jax.vmap(tx.init) if layers else tx.init)(group)
            for layers, group in groups.items()
        }

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        grad_groups = _by_number_of_layers(updates, layer_axis)
        flat, new_state = {}, {}
        for layers, group in _by_number_of_layers(params, layer_axis).items():
            update_group = jax.vmap(tx.update) if layers else tx.update
            name = _name(layers)
            folded, new_state[name] = update_group(grad_groups[layers], state[name], group)
            flat.update(tree.flatten(folded))

        def unfold(path: str, param: jax.Array) -> jax.Array:
            axis = layer_axis(path)
            return flat[path] if axis is None else _unfold(flat[path], axis, param.shape)

        return tree.map_with_path(unfold, params), new_state

    return optax.GradientTransformation(init, update)


def _name(layers: int) -> str:
    """Returns the key under which the state of a group is kept."""
    return f"layers_{layers}" if layers else "unstacked"


def _by_number_of_layers(params: PyTree, layer_axis: LayerAxis) -> dict[int, PyTree]:
    """Groups leaves by how many layers they stack (0: none), stacked ones folded to [layers, ...]."""
    groups: dict[int, dict[str, jax.Array]] = {}
    for path, leaf in tree.flatten(params).items():
        axis = layer_axis(path)
        folded = leaf if axis is None else _fold(path, leaf, axis)
        groups.setdefault(0 if axis is None else folded.shape[0], {})[path] = folded
    return {layers: tree.unflatten(group) for layers, group in groups.items()}


def _fold(path: str, leaf: jax.Array, axis: int) -> jax.Array:
    """Returns a stacked leaf as [layers, ...], each layer of the shape it has in the unscanned model."""
    leaf = jnp.moveaxis(leaf, axis, 0)
    if leaf.ndim < 4:
        return leaf
    # Scanned attention keeps [embed, heads, kv] apart (`out`: [heads, kv, embed]); the unscanned kernel, and so the
    # factoring of its second moments, joins heads and kv.
    rows = math.prod(leaf.shape[1:3]) if path.endswith("/out/kernel") else leaf.shape[1]
    return leaf.reshape(leaf.shape[0], rows, -1)


def _unfold(folded: jax.Array, axis: int, shape: tuple[int, ...]) -> jax.Array:
    """Returns a folded leaf in its stacked shape; the inverse of `_fold`."""
    per_layer = shape[:axis] + shape[axis + 1 :]
    return jnp.moveaxis(folded.reshape(shape[axis], *per_layer), 0, axis)
