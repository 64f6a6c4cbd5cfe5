"""What can be done with what each method adds: its files of other programs, and its way into a model's weights.

It is the one place here that knows methods by name: a method has a row of `KINDS`, and a module beside this one if it
has files of other programs or can be taken into weights. Its own file, `.safetensors`, is the same for all (`read.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.method_files import ia3
from prompt_tuning.checkpoints.method_files.kernel_change import KernelChange
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet


class EncodeAdapter(Protocol):
    """Returns the files of an adapter of PEFT, by name, the configuration last."""

    def __call__(self, found: MethodSet, *, base_model: str | None) -> dict[str, bytes]:
        """`base_model` is the name on the Hugging Face hub, or the path, of the model that it is for."""
        ...


@dataclasses.dataclass(frozen=True)
class Kind:
    """What can be done with what one method adds; None where it cannot.

    Attributes:
      name: The method's name, as `Method.describe` says it.
      peft_type: The `peft_type` of its adapters in PEFT.
      read_adapter: Reads an adapter's directory.
      encode_adapter: See `EncodeAdapter`.
      read_torch: Reads a file of PyTorch's, local.
      change_kernel: `(name -> parameter at one linear map of one layer, the map's path, settings) -> KernelChange`.
    """

    name: str
    peft_type: str | None = None
    read_adapter: Callable[[epath.Path], MethodSet] | None = None
    encode_adapter: EncodeAdapter | None = None
    read_torch: Callable[[epath.Path], MethodSet] | None = None
    change_kernel: (
        Callable[[Mapping[str, np.ndarray], str, Mapping[str, Any]], KernelChange] | None
    ) = None


KINDS = (
    Kind(
        "IA3",
        peft_type=ia3.PEFT_KIND,
        read_adapter=ia3.read_adapter,
        encode_adapter=ia3.encode_adapter,
        read_torch=ia3.read_t_few,
        change_kernel=ia3.change_kernel,
    ),
)


def of_set(found: MethodSet) -> Kind | None:
    """Returns the kind of what a method added; None if no row has its name, or it does not say it."""
    name = (found.info.get(METHOD) or {}).get("name")
    return next((kind for kind in KINDS if kind.name == name), None)


def of_adapter(peft_type: str | None) -> Kind | None:
    """Returns the kind whose adapters PEFT calls this; None if no row has it."""
    return next((kind for kind in KINDS if kind.peft_type and kind.peft_type == peft_type), None)


def names_of(field: str) -> str:
    """Returns the names of the methods for which a field of `Kind` is there, for messages."""
    return ", ".join(kind.name for kind in KINDS if getattr(kind, field) is not None)
