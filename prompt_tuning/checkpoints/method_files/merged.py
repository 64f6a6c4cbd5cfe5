"""A checkpoint whose weights have taken in what a method added: a plain model that computes the same."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.method_files import kinds
from prompt_tuning.checkpoints.method_files.kernel_change import KernelChange
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from prompt_tuning.params.names import is_method

_KERNEL = "/kernel"


class MergedSource:
    """The parameters of a checkpoint with what a method added taken into its kernels, without the method's own.

    Args:
      source: The checkpoint, in either layout.
      found: What the method added.

    Attributes:
      metadata: Of what the run recorded, what still holds.

    Raises:
      CheckpointError: If the method does not belong into weights, or a kernel is missing, of another width, or stored
        as int8.
    """

    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()

    def __init__(self, source: ParamSource, found: MethodSet):
        """Compares names and shapes; reads no weights."""
        self._source, self._found = source, found
        self.kind, self.path, self.step = source.kind, source.path, source.step
        self.settings: Mapping[str, Any] | None = source.settings
        recorded = getattr(source, "metadata", {})
        origin = found.info.get("exported_from")
        self.metadata: dict[str, Any] = {"model": recorded.get("model", {}), "merged": origin}
        kind = kinds.of_set(found)
        if "methods" in (found.info.get(METHOD) or {}):
            raise CheckpointError(
                "Several methods that were tuned together are not merged",
                got=" and ".join(part["name"] for part in found.info[METHOD]["methods"]),
                expected=f"one of {kinds.names_of('change_kernel')}, tuned alone or beside a prompt",
                fix="use the run as it is, or tune a method that can be merged alone",
            )
        if kind is None or kind.change_kernel is None:
            raise CheckpointError(
                "What is to be merged is not known to belong into weights",
                got=found.info.get(METHOD),
                expected=f"a file that says it is of one of the methods {kinds.names_of('change_kernel')}",
                fix="name a run that was trained with such a method of methods/*.gin, or a file of one",
            )
        added: dict[str, dict[str, np.ndarray]] = {}
        for path, x in found.params.items():
            place, _, name = path.rpartition("/")
            added.setdefault(place, {})[name] = x
        changes = {
            place: kind.change_kernel(params, place, found.info[METHOD])
            for place, params in added.items()
        }
        unused = set(changes)
        # Kernel -> what becomes of each of its layers; an unstacked kernel is one layer.
        self._changes: dict[str, list[KernelChange]] = {}
        for path, (shape, dtype) in source.shapes().items():
            places = _places(path, shape)
            if not unused.isdisjoint(places):
                unused.difference_update(places)
                self._changes[path] = self._changes_of(path, shape, dtype, changes)
        if unused:
            raise self._does_not_fit(
                min(unused), "no such weights", "weights for all that was added"
            )

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of the parameters of the model alone."""
        return {path: x for path, x in self._source.shapes().items() if not is_method(path)}

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        return self._source.chunks(path)

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it, in the dtype it is stored in; the products are float32 ones."""
        stored = self._source.read(path, index)
        if path not in self._changes:
            return stored
        shape = self._source.shapes()[path][0]
        index = index or (slice(None),) * len(shape)
        part = stored.astype(np.float32)
        if not layouts.is_stacked(path):
            (change,) = self._changes[path]
            return change.of_part(part, shape, _num_inputs(path), index).astype(stored.dtype)
        axis = layouts.LAYERS_AXIS
        layer, of_layer = _without(shape, axis), _without(index, axis)
        changed = [
            change.of_part(np.take(part, i, axis), layer, _num_inputs(path), of_layer)
            for i, change in enumerate(self._changes[path][index[axis]])
        ]
        return np.stack(changed, axis).astype(stored.dtype)

    def _changes_of(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        changes: Mapping[str, KernelChange],
    ) -> list[KernelChange]:
        """What becomes of each layer of a kernel."""
        if dtype == jnp.int8:
            raise self._does_not_fit(path, "int8", "floats: convert what the int8 was made from")
        layer = _without(shape, layouts.LAYERS_AXIS) if layouts.is_stacked(path) else shape
        num_inputs = _num_inputs(path)
        widths = math.prod(layer[:num_inputs]), math.prod(layer[num_inputs:])
        of_layers = []
        for place in _places(path, shape):
            change = changes.get(place)
            if change is None and self._found.absent is None:
                raise self._does_not_fit(place, "none", "something for every layer")
            change = change or KernelChange()
            if misfit := change.misfit(*widths):
                raise self._does_not_fit(place, *misfit)
            of_layers.append(change)
        return of_layers

    def _does_not_fit(self, name: str, got: str, expected: str) -> CheckpointError:
        """The error for what was added to another model."""
        return CheckpointError(
            f"{self.metadata['merged']} cannot be merged into {self.path}: {name}",
            got=got,
            expected=expected,
            fix="name the checkpoint that it was trained on, or another of its size",
        )


def _places(path: str, shape: tuple[int, ...]) -> list[str]:
    """The linear maps whose kernel a parameter is, one a layer; none if it is no kernel."""
    if not path.endswith(_KERNEL):
        return []
    place = path.removesuffix(_KERNEL)
    if not layouts.is_stacked(path):
        return [place]
    return layouts.unscanned_paths(place, shape[layouts.LAYERS_AXIS])


def _num_inputs(path: str) -> int:
    """How many axes of a layer's kernel are inputs: heads and their width are apart where layers are stacked."""
    is_apart = layouts.is_stacked(path) and path.endswith(f"/out{_KERNEL}")
    return 2 if is_apart else 1


def _without(items: tuple, axis: int) -> tuple:
    return (*items[:axis], *items[axis + 1 :])
