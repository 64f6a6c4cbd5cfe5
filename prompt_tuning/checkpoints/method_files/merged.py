"""A checkpoint whose weights have taken in what a method added: a plain model that computes the same."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints.method_files import ia3
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from prompt_tuning.params.names import IA3_SCALING, is_method

_KERNEL = "kernel"


class MergedSource:
    """The parameters of a checkpoint with (IA)3's factors multiplied into its kernels, without the factors.

    Columns of a kernel are scaled for factors of its outputs, rows for those of its inputs: l_ff goes into `wo`, which
    is right whatever the block's activations are.

    Args:
      source: The checkpoint, in either layout.
      found: The factors.

    Attributes:
      metadata: Of what the run recorded, what still holds.

    Raises:
      CheckpointError: If a kernel is missing, of another width, or stored as int8.
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
        if found.info.get(METHOD, {}).get("name") != ia3.NAME:
            raise CheckpointError(
                "What is to be merged is not known to belong into weights",
                got=found.info.get(METHOD),
                expected=f"a file that says it is of the method {ia3.NAME}",
                fix="name a run that was trained with methods/ia3.gin, or a file of one",
            )
        unused = set(found.params)
        # Kernel -> the factors of all it holds, which broadcast with it.
        self._factors: dict[str, np.ndarray] = {}
        for path, (shape, dtype) in source.shapes().items():
            names = [name for name in self._names(path, shape) if name in unused]
            unused.difference_update(names)
            if names:
                self._factors[path] = self._factors_of(path, shape, dtype)
        if unused:
            raise self._does_not_fit(min(unused), "no such weights", "weights for every factor")

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of the parameters of the model alone."""
        return {path: x for path, x in self._source.shapes().items() if not is_method(path)}

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored."""
        return self._source.chunks(path)

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter, or a part of it, in the dtype it is stored in; the product is a float32 one."""
        stored = self._source.read(path, index)
        if path not in self._factors:
            return stored
        factors = np.broadcast_to(self._factors[path], self._source.shapes()[path][0])
        part = factors if index is None else factors[index]
        return (stored.astype(np.float32) * part).astype(stored.dtype)

    def _names(self, path: str, shape: tuple[int, ...]) -> list[str]:
        """The factors of a parameter, a layer each."""
        if not path.endswith(f"/{_KERNEL}"):
            return []
        factors = path.removesuffix(_KERNEL) + IA3_SCALING
        if not layouts.is_stacked(path):
            return [factors]
        return layouts.unscanned_paths(factors, shape[layouts.LAYERS_AXIS])

    def _factors_of(self, path: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The factors of a kernel, one for each of its inputs or outputs, and layer by layer where it is stacked."""
        if dtype == jnp.int8:
            raise self._does_not_fit(path, "int8", "floats: convert what the int8 was made from")
        map_name = path.split("/")[-2]
        is_stacked = layouts.is_stacked(path)
        layer = [n for i, n in enumerate(shape) if not is_stacked or i != layouts.LAYERS_AXIS]
        # Heads and their width are apart in stacked kernels.
        num_in = len(layer) - 1 if map_name == "out" else 1
        is_input = map_name in self._found.info[METHOD]["inputs"]
        kept = [n if (i < num_in) == is_input else 1 for i, n in enumerate(layer)]
        parts = []
        for name in self._names(path, shape):
            x = self._found.params.get(name)
            if x is None and self._found.absent is not None:
                x = np.full(np.prod(kept), self._found.absent, np.float32)
            if x is None or x.size != np.prod(kept):
                has = "none" if x is None else f"{x.size} of them"
                raise self._does_not_fit(name, has, f"{np.prod(kept)} factors")
            parts.append(x.reshape(kept))
        return np.stack(parts, axis=layouts.LAYERS_AXIS) if is_stacked else parts[0]

    def _does_not_fit(self, name: str, got: str, expected: str) -> CheckpointError:
        """The error for factors of another model."""
        return CheckpointError(
            f"{self.metadata['merged']} cannot be merged into {self.path}: {name}",
            got=got,
            expected=expected,
            fix="name the checkpoint that it was trained on, or another of its size",
        )
