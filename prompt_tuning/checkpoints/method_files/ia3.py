"""(IA)3 as T-Few's PyTorch files and as adapters of Hugging Face's PEFT have it.

| here | T-Few | PEFT |
|---|---|---|
| output of `key` [N*D] | `….k.multi_lora_b` [N*D, 1] | `….k.ia3_l` [N*D, 1] |
| input of `wo` [F] | output of `wi_1`: `….wi_1.multi_lora_b` [F, 1] | `….wo.ia3_l` [1, F] |

PEFT scales the input of its `feedforward_modules` and the output of its other `target_modules`, which the shape of the
factors tells. Its default is [k, v, wo] with the feed-forward module wo, and for mT5 T-Few's form, [k, v, wi_1] without
one. Factors on the output of wi_1 are taken for those of wo's input, which is the same because that half of a gated
block has no activation, unless wo is scaled at its output.

Source: r-three/t-few, `src/models/lora.py`; PEFT 0.21, `tuners/ia3/layer.py` and `utils/constants.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.formats import huggingface, torch_files
from prompt_tuning.checkpoints.method_files.kernel_change import KernelChange
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import IA3_SCALING, LINEAR_MAPS

PEFT_KIND = "IA3"
NAME = "IA3"
_PREFIX, _PEFT_TENSOR = "base_model.model.", ".ia3_l"
_T_FEW_TENSOR = ".multi_lora_b"


def read_t_few(path: epath.Path) -> MethodSet:
    """Reads T-Few's vectors, such as `t03b_ia3_finish.pt`.

    Args:
      path: A file that PyTorch wrote; local.

    Raises:
      CheckpointError: If it is damaged, or holds anything else.
    """
    files = torch_files.TorchFiles([path])
    tensors = {name: files.read(name) for name in files.shapes()}
    return _from_modules(path, tensors, _T_FEW_TENSOR, info={})


def read_adapter(path: epath.Path) -> MethodSet:
    """Reads a PEFT adapter of (IA)3.

    Args:
      path: The adapter's directory; local or gs://.

    Raises:
      CheckpointError: If the adapter is of another kind or for another kind of model, or damaged.
    """
    config = peft.read_config(path, kind=PEFT_KIND, what="the factors of (IA)3")
    tensors, info = peft.read_tensors(path)
    named = {name.removeprefix(_PREFIX): x for name, x in tensors.items()}
    read = _from_modules(path, named, _PEFT_TENSOR, info=info or {})
    # What it leaves out stays as it is.
    is_partial = peft.leaves_modules_out(config)
    return MethodSet(read.params, read.info, absent=1.0 if is_partial else None)


def encode_adapter(found: MethodSet, *, base_model: str | None) -> dict[str, bytes]:
    """Returns the files of an adapter, by name, that `peft.PeftModel.from_pretrained` loads, the configuration last.

    Args:
      found: Factors of every layer.
      base_model: Name on the Hugging Face hub, or path, of the model that they are for.
    """
    settings = found.info[METHOD]
    inputs = [name for name in LINEAR_MAPS if name in settings["inputs"]]
    outputs = [name for name in LINEAR_MAPS if name in settings["outputs"]]
    tensors = {}
    for path, x in found.params.items():
        module = path.removesuffix(f"/{IA3_SCALING}")
        is_input = module.rpartition("/")[2] in inputs
        name = _PREFIX + huggingface.module_there(module) + _PEFT_TENSOR
        tensors[name] = x[None] if is_input else x[:, None]
    letter = lambda names: [huggingface.LETTERS.get(name) or name for name in names]  # noqa: E731
    targets = letter([*outputs, *inputs])
    config = {
        "fan_in_fan_out": False,
        "feedforward_modules": letter(inputs),
        "init_ia3_weights": True,
        "modules_to_save": None,
        # A list names maps of every layer; with an expression, layers may be left out.
        "target_modules": targets if found.absent is None else rf".*\.({'|'.join(targets)})",
    }
    return peft.encode_files(tensors, found.info, config, kind=PEFT_KIND, base_model=base_model)


def change_kernel(
    params: Mapping[str, np.ndarray], path: str, settings: Mapping[str, Any]
) -> KernelChange:
    """Returns what the factors of one linear map make of its kernel.

    l_ff goes into `wo`, which is right whatever the block's activations are.

    Args:
      params: Name -> factors.
      path: The map's.
      settings: The method's.
    """
    factors = params[IA3_SCALING]
    is_input = path.rpartition("/")[2] in settings["inputs"]
    return KernelChange(rows=factors) if is_input else KernelChange(columns=factors)


def _from_modules(
    path: epath.Path, tensors: Mapping[str, np.ndarray], ending: str, info: Mapping[str, Any]
) -> MethodSet:
    """Factors by Hugging Face's names of the maps that they scale."""
    params: dict[str, np.ndarray] = {}
    ends: dict[str, set[str]] = {"outputs": set(), "inputs": set()}
    # A `wo` that is scaled at its output has no other factors.
    is_wo_free = all(
        not n.endswith(f".wo{ending}") or x.shape[:1] == (1,) for n, x in tensors.items()
    )
    for name, x in tensors.items():
        module = huggingface.module_here(name.removesuffix(ending))
        if module is None or not name.endswith(ending) or x.ndim != 2 or 1 not in x.shape:
            raise CheckpointError(
                f"{path} holds something else than factors of (IA)3",
                got=f"{name} {list(x.shape)}",
                expected=f"tensors [outputs, 1] or [1, inputs] called encoder.block.0….k{ending} and so on",
                fix="name a file that holds nothing else",
            )
        is_input = x.shape[0] == 1
        if module.endswith("/wi_1") and not is_input and is_wo_free:
            module, is_input = module.replace("/wi_1", "/wo"), True
        ends["inputs" if is_input else "outputs"].add(module.rpartition("/")[2])
        target = f"{module}/{IA3_SCALING}"
        factors = x.reshape(-1).astype(np.float32)
        params[target] = params[target] * factors if target in params else factors
    both = ends["inputs"] & ends["outputs"]
    if both or not params:
        raise CheckpointError(
            f"{path} holds no (IA)3 that can be used here",
            got=f"{sorted(both)} scaled at both ends" if both else "no tensors",
            expected="factors, of each map for its inputs or for its outputs",
            fix="use another adapter",
        )
    settings = {end: [n for n in LINEAR_MAPS if n in names] for end, names in ends.items()}
    return MethodSet(params, {**info, METHOD: {"name": NAME, **settings}})
