"""Reads tensors from PyTorch's own files, through torch's loader of weights only.

Such a file is a pickle, which can run any code when it is opened; the weights-only loader builds tensors and refuses
everything else. torch comes with the extra `[hf]`.
"""

import os
import zipfile
from collections.abc import Iterable
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.data import file_kinds
from prompt_tuning.errors import CheckpointError, unreadable


class TorchFiles:
    """The tensors of one or several `.bin` files.

    Args:
      files: Their paths; local.

    Raises:
      CheckpointError: If torch is missing, or a file is missing, not local, cut short, or holds more than tensors.
    """

    def __init__(self, files: Iterable[epath.PathLike]):
        """Reads names and shapes."""
        # Name -> (file, shape, dtype).
        self._tensors: dict[str, tuple[epath.Path, tuple[int, ...], np.dtype]] = {}
        # The content of files that cannot be mapped, which is read once.
        self._whole: dict[epath.Path, dict[str, Any]] = {}
        for name in files:
            file = epath.Path(name)
            tensors = _load(file)
            if not zipfile.is_zipfile(file):
                self._whole[file] = tensors
            for tensor, value in tensors.items():
                self._tensors[tensor] = (file, tuple(value.shape), _dtype(file, tensor, value))

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns name -> (shape, dtype) of every tensor."""
        return {name: (shape, dtype) for name, (_, shape, dtype) in self._tensors.items()}

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Returns a tensor, or a range of its first axis, in the stored dtype.

        The file is mapped anew each time, so that what was read before does not stay in memory; one that torch wrote
        before version 1.6 cannot be mapped and stays there whole.

        Args:
          name: One of `shapes()`.
          rows: Rows to read; not of a scalar.
        """
        import torch

        file, shape, dtype = self._tensors[name]
        tensor = (self._whole.get(file) or _load(file))[name]
        tensor = (tensor[rows] if shape else tensor).detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.contiguous().view(torch.int16).numpy().copy().view(dtype)
        return tensor.numpy().copy()


def _dtype(file: epath.Path, name: str, tensor: Any) -> np.dtype:
    """A tensor's dtype; CheckpointError if NumPy has none such, as for quantized tensors."""
    text = str(tensor.dtype).removeprefix("torch.")
    try:
        return jnp.dtype(text)
    except TypeError as e:
        raise CheckpointError(
            f"The tensor {name} in {file} cannot be a parameter",
            got=text,
            expected="floating-point weights",
            fix="save the model with such weights: model.float().save_pretrained(FOLDER)",
        ) from e


def _load(file: epath.Path) -> dict[str, Any]:
    """Name -> tensor of one file, mapped to memory if the file is a zip archive, as torch writes them since 1.6."""
    if paths.in_object_store(file) or not os.path.isfile(file):
        raise CheckpointError(
            f"Cannot open {file}",
            got="no local file",
            expected="a PyTorch file on this machine",
            fix="copy it here, or save the model as model.safetensors, which is read from anywhere",
        )
    text = os.fspath(file)
    return load_tensors(text, text, mmap=zipfile.is_zipfile(text))


def load_tensors(content: str | IO[bytes], name: str, *, mmap: bool = False) -> dict[str, Any]:
    """Returns name -> torch tensor of a file, by torch's loader of weights only.

    Args:
      content: Path of a local file, or its content.
      name: What errors call it.
      mmap: Whether to map the file to memory.

    Raises:
      CheckpointError: If torch is missing, or the file is damaged or holds more than tensors.
    """
    try:
        import torch
    except ImportError as e:
        raise CheckpointError(
            f"{name} is a PyTorch file, which only torch can read",
            got="no torch",
            expected="the extra [hf]",
            fix="run `pip install prompt-tuning[hf]`, or save it again as safetensors",
        ) from e
    try:
        loaded = torch.load(content, map_location="cpu", weights_only=True, mmap=mmap)
        if not isinstance(loaded, dict) or not all(map(torch.is_tensor, loaded.values())):
            raise ValueError(f"a {type(loaded).__name__} that does not hold tensors only")
    except Exception as e:  # pickle and torch raise many unrelated types on what they refuse
        cause, fix = file_kinds.stand_in(name) or (
            e,
            "do not open this file with a loader that runs code; get the safetensors file instead",
        )
        raise unreadable(
            f"{name} as a file of tensors",
            cause,
            expected="tensors by name, which torch.load(weights_only=True) opens",
            fix=fix,
        ) from e
    return loaded
