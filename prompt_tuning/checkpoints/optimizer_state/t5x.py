"""Adafactor's second moments in T5X checkpoints, in the shapes in which this program keeps them.

T5X stores `state/param_states/{path}/{v,v_row,v_col,m}` for each parameter; what its Adafactor does not use is a
placeholder of shape (1,). Which axes the factored moments keep depends on the layout:

| parameter | `v_row` keeps | `v_col` keeps |
|---|---|---|
| unscanned [a, b] | the smaller axis, the first of two equal ones | the other axis |
| scanned kernel | layers and `embed` (H) | layers and the rest |

Optax keeps one of the two in the same way for every layer: the unscanned rule. In between, the moments of one layer are
known by the axis of its matrix that they belong to, so that no convention has to be carried on.

Source: T5X, `adafactor.py` (`_factored_dims`, `standard_logical_factor_rules`).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.checkpoints.formats.t5x import T5XParams
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts

SLOTS = ("v", "v_row", "v_col")
_PLACEHOLDER = (1,)
_MAX_SHOWN = 3
# Kernels whose last axis is `embed`; it is the first one of all others.
_EMBED_LAST = ("/out/kernel", "/wo/kernel")
_FRESH = "bind adafactor.Adafactor.restored_step = 0 to start with a fresh optimizer"


@dataclasses.dataclass(frozen=True)
class LayerMoments:
    """Second moments of one parameter of one layer.

    Attributes:
      full: In the parameter's shape; None if they are factored.
      along: The means over the other axis of a matrix [a, b], as arrays [a] and [b]; None if they are not factored.
    """

    full: np.ndarray | None
    along: tuple[np.ndarray, np.ndarray] | None

    def unfactored(self) -> np.ndarray:
        """Returns them in the parameter's shape; of factored ones Adafactor's own estimate, of rank 1."""
        if self.full is not None:
            return self.full
        assert self.along is not None
        rows, columns = self.along
        mean = rows.mean(dtype=np.float32)
        return np.outer(rows, columns) / (mean if mean > 0 else np.float32(1.0))

    def means(self, axis: int) -> np.ndarray:
        """Returns the means along one axis of a matrix; the moving average of means is the mean of moving averages."""
        if self.along is not None:
            return self.along[axis]
        assert self.full is not None
        return self.full.mean(axis=1 - axis, dtype=np.float32)


class T5XOptimizerState:
    """Adafactor's state in a T5X checkpoint.

    Args:
      source: The checkpoint.

    Attributes:
      step: The step that T5X would restore into the optimizer; None if the checkpoint does not tell.
    """

    def __init__(self, source: T5XParams):
        """Reads the index, but no array of its own folder."""
        self.path, self.step = source.path, source.step
        self._shapes = {path: shape for path, (shape, _) in source.shapes().items()}
        self._leaves = source.param_states
        self._stored_shapes = {path: shape for path, (shape, _) in self._leaves.shapes().items()}

    def covers(self, path: str, shape: Sequence[int]) -> bool:
        """Returns whether there are moments for a parameter of the model, in either layout."""
        names = self._origin(path, shape)
        return bool(names) and all(
            f"{name}/{slot}" in self._stored_shapes for name in names for slot in SLOTS
        )

    def momentum(self) -> list[str]:
        """Returns the stored parameters that have a momentum, which the Adafactor of this program has not."""
        suffix = "/m"
        return [
            path.removesuffix(suffix)
            for path, shape in self._stored_shapes.items()
            if path.endswith(suffix) and shape != _PLACEHOLDER
        ]

    def read_slot(
        self, path: str, shape: Sequence[int], slot: str, slot_shape: Sequence[int]
    ) -> np.ndarray:
        """Returns one array of Optax's `FactoredState`.

        Args:
          path: A parameter of the model that `covers` tells of.
          shape: Its shape there.
          slot: "v", "v_row" or "v_col".
          slot_shape: Shape of the slot; of stacked layers with the layers first and heads joined with their width.

        Returns:
          A float32 array of `slot_shape`; zeros for a placeholder.

        Raises:
          CheckpointError: If a stored array is unreadable or of a shape that fits no convention.
        """
        slot_shape = tuple(slot_shape)
        stacked = layouts.is_stacked(path)
        layer_shape = layouts.layer_shape(path, shape) if stacked else tuple(shape)
        if slot_shape[int(stacked) :] == _PLACEHOLDER != layer_shape:
            return np.zeros(slot_shape, np.float32)
        layers = self._layers(path, tuple(shape))
        if slot == "v":
            arrays = [layer.unfactored() for layer in layers]
        else:
            row, column = _kept_axes(layer_shape)
            axis = row if slot == "v_row" else column
            arrays = [layer.means(axis) for layer in layers]
        result = np.stack(arrays) if stacked else arrays[0]
        assert result.shape == slot_shape, (path, slot, result.shape, slot_shape)
        return result.astype(np.float32, copy=False)

    def _origin(self, path: str, shape: Sequence[int]) -> list[str]:
        """The stored parameters whose moments are those of a parameter of the model; empty if there are none."""
        known = lambda names: bool(names) and all(f"{n}/v" in self._stored_shapes for n in names)  # noqa: E731
        if known([path]):
            return [path]
        if not layouts.is_stacked(path):
            names = [layouts.scanned_path(path)[0]]
            return names if known(names) else []
        count = shape[layouts.LAYERS_AXIS]
        for per_layer in (False, True):
            names = layouts.unscanned_paths(path, count, relative_bias_per_layer=per_layer)
            if known(names):
                return names
        return []

    def _layers(self, path: str, shape: tuple[int, ...]) -> list[LayerMoments]:
        """The moments of a parameter of the model, layer by layer; one layer if it is not stacked."""
        names = self._origin(path, shape)
        if names == [path]:
            return self._stored(path)
        if layouts.is_stacked(path):
            layers = [self._stored(name)[0] for name in names]
            # The one table that all layers share, repeated as its values are.
            return layers * (shape[layouts.LAYERS_AXIS] // len(layers))
        layers = self._stored(names[0])
        _, layer = layouts.scanned_path(path)
        return [layers[layer or 0]]

    def _stored(self, path: str) -> list[LayerMoments]:
        """The moments of a stored parameter, layer by layer."""
        shape = self._shapes[path]
        v, v_row, v_col = (self._stored_shapes[f"{path}/{slot}"] for slot in SLOTS)
        if v == shape:
            full = self._read(f"{path}/v")
            return [LayerMoments(part, None) for part in layouts.split_layers(path, full)]
        row_axes, column_axes = _stored_axes(path, shape)
        expected = [tuple(shape[a] for a in axes) for axes in (row_axes, column_axes)]
        found = [v_row, v_col]
        if found != expected or not row_axes:
            raise CheckpointError(
                f"The optimizer state of {path} in the T5X checkpoint {self.path} fits no convention of T5X's",
                got=f"v {list(v)}, v_row {list(found[0])}, v_col {list(found[1])}",
                expected=f"v {list(shape)}, or v_row {list(expected[0])} and v_col {list(expected[1])}",
                fix=_FRESH,
            )
        row, column = self._read(f"{path}/v_row"), self._read(f"{path}/v_col")
        if not layouts.is_stacked(path):
            return [LayerMoments(None, (row, column) if row_axes == (0,) else (column, row))]
        row, column = (
            np.moveaxis(x, axes.index(layouts.LAYERS_AXIS), 0).reshape(shape[1], -1)
            for x, axes in ((row, row_axes), (column, column_axes))
        )
        pairs = (
            zip(column, row, strict=True) if _embed_is_last(path) else zip(row, column, strict=True)
        )
        return [LayerMoments(None, pair) for pair in pairs]

    def _read(self, path: str) -> np.ndarray:
        """One stored array in float32."""
        return np.asarray(self._leaves.read(path), np.float32)


def find_optimizer_state(
    source: ParamSource | None, shapes: Mapping[str, Sequence[int]]
) -> T5XOptimizerState | None:
    """Returns the optimizer state of a checkpoint for the given parameters; None if it has none for any of them.

    Args:
      source: The initial checkpoint, of any kind.
      shapes: Parameter path -> shape, of the parameters that are trained and come from `source`; in either layout.

    Raises:
      CheckpointError: If there is a state for some of the parameters only, or one that this program has no place for.
    """
    if not shapes or not isinstance(source, T5XParams):
        return None
    state = T5XOptimizerState(source)
    missing = [path for path, shape in shapes.items() if not state.covers(path, shape)]
    if len(missing) == len(shapes):
        return None
    if missing:
        raise CheckpointError(
            f"The T5X checkpoint {source.path} has optimizer state for some of the trained parameters only:"
            f" {len(missing)} of {len(shapes)} have none",
            got=f"none for {', '.join(missing[:_MAX_SHOWN])}",
            expected="second moments for every parameter that is trained, or for none",
            fix=_FRESH,
        )
    if state.momentum():
        raise CheckpointError(
            f"The optimizer of the T5X checkpoint {source.path} has a momentum",
            got=f"an array m for {', '.join(state.momentum()[:_MAX_SHOWN])}",
            expected="Adafactor without beta1",
            fix=_FRESH,
        )
    if state.step is None:
        raise CheckpointError(
            f"The step of the T5X checkpoint {source.path} is unknown",
            got=f"no step in its state, and a folder called {source.path.name}",
            expected="a recorded step, or a folder called checkpoint_{step}",
            fix="rename the folder to checkpoint_{step}",
        )
    return state


def _kept_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axes that Optax's `v_row` and `v_col` keep: of the two largest, the smaller and the larger."""
    *_, row, column = np.argsort(shape)
    return int(row), int(column)


def _stored_axes(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The axes that T5X's `v_row` and `v_col` of a stored parameter keep; none if T5X never factors it."""
    if not layouts.is_stacked(path):
        if len(shape) != 2:
            return (), ()
        row, column = _kept_axes(shape)
        return (row,), (column,)
    if not path.endswith("/kernel"):
        return (), ()
    embed = len(shape) - 1 if _embed_is_last(path) else 0
    row = tuple(sorted((embed, layouts.LAYERS_AXIS)))
    return row, tuple(axis for axis in range(len(shape)) if axis != embed)


def _embed_is_last(path: str) -> bool:
    """Whether the last axis of a kernel, not its first, is `embed`."""
    return path.endswith(_EMBED_LAST)
