"""What can be done with what each method adds: its files of other programs, and its way into a model's weights.

It is the one place here that knows methods by name: a method has a row of `KINDS`, and a module beside this one if it
has files of other programs or can be taken into weights. Its own file, `.safetensors`, is the same for all (`read.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.method_files import ia3, lora, mpt, prefix, residual
from prompt_tuning.checkpoints.method_files.kernel_change import KernelChange
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.types import Array


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
      changes_prompt: Whether it makes something else of the model's own prompt, which its adapters then hold as well.
      read_torch: Reads a file of PyTorch's, local.
      fold: `(path -> array, settings) -> path -> array`: what a run trained, prompt and all, without the parts that are
        discarded after training.
      without_network: `(path -> array, settings) -> (path -> array, settings)`: what a run trained without a network
        that made what the method adds, and the settings that then hold.
      change_kernel: `(name -> parameter at one linear map of one layer, the map's path, settings) -> KernelChange`.
    """

    name: str
    peft_type: str | None = None
    read_adapter: Callable[[epath.Path], MethodSet] | None = None
    encode_adapter: EncodeAdapter | None = None
    changes_prompt: bool = False
    read_torch: Callable[[epath.Path], MethodSet] | None = None
    fold: Callable[[Mapping[str, Array], Mapping[str, Any]], dict[str, Array]] | None = None
    without_network: (
        Callable[[Mapping[str, Array], Mapping[str, Any]], tuple[dict[str, Array], dict[str, Any]]]
        | None
    ) = None
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
    Kind(
        "LoRA",
        peft_type=lora.PEFT_KIND,
        read_adapter=lora.read_adapter,
        encode_adapter=lora.encode_adapter,
        change_kernel=lora.change_kernel,
    ),
    Kind(
        mpt.NAME,
        peft_type=mpt.PEFT_KIND,
        read_adapter=mpt.read_adapter,
        encode_adapter=mpt.encode_adapter,
        changes_prompt=True,
    ),
    Kind("MultitaskPrompt", changes_prompt=True),
    Kind("Attempt", changes_prompt=True),
    # Of its prompt the layers see nothing, or what they add to it.
    Kind("DeepPrompt", changes_prompt=True),
    Kind(
        prefix.NAME,
        peft_type=prefix.PEFT_KIND,
        read_adapter=prefix.read_adapter,
        encode_adapter=prefix.encode_adapter,
        without_network=prefix.without_network,
    ),
    Kind("Residual", changes_prompt=True, fold=residual.fold),
)


def of_set(found: MethodSet) -> Kind | None:
    """Returns the kind of what a method added; None if no row has its name, or it does not say it."""
    name = (found.info.get(METHOD) or {}).get("name")
    return next((kind for kind in KINDS if kind.name == name), None)


def of_adapter(peft_type: str | None) -> Kind | None:
    """Returns the kind whose adapters PEFT calls this; None if no row has it."""
    return next((kind for kind in KINDS if kind.peft_type and kind.peft_type == peft_type), None)


def changes_prompt(info: Mapping[str, Any]) -> bool:
    """Returns whether a prompt is only a part of what stood in front of the input, by what is recorded of it."""
    return bool(changing_prompt(info))


def changing_prompt(info: Mapping[str, Any]) -> list[str]:
    """Returns the names of the methods that made something else of a prompt, by what is recorded of it."""
    method = info.get(METHOD) or {}
    names = [part.get("name") for part in method.get("methods") or [method]]
    return [kind.name for kind in KINDS if kind.changes_prompt and kind.name in names]


def names_of(field: str) -> str:
    """Returns the names of the methods for which a field of `Kind` is there, for messages."""
    return ", ".join(kind.name for kind in KINDS if getattr(kind, field) is not None)
