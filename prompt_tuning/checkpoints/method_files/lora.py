"""LoRA as adapters of Hugging Face's PEFT have it.

| here, of `encoder/layers_0/attention/query` | PEFT, of `….encoder.block.0.layer.0.SelfAttention.q` |
|---|---|
| `lora_a` [inputs, rank] | `lora_A.weight` [rank, inputs] |
| `lora_b` [rank, outputs] | `lora_B.weight` [outputs, rank] |

PEFT names modules by a list of endings or by one expression for whole names, and gives some a rank or an alpha of their
own by `rank_pattern` and `alpha_pattern`. Here a place is the same in every layer, so settings are made from the
modules that an adapter has. Where layers of a place differ in rank or scale, the smaller ones get columns of zeros and
their B takes the scale in, which is the same function.

Source: PEFT 0.21, `tuners/lora/config.py`, `tuners/lora/layer.py`, `utils/other.py` `get_pattern_key`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning.checkpoints.formats import huggingface
from prompt_tuning.checkpoints.method_files.kernel_change import KernelChange
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import LORA_A, LORA_B, place_of

PEFT_KIND = "LORA"
NAME = "LoRA"
_PREFIX = "base_model.model."
# PEFT's own names of adapters may stand in it.
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")
# Fields of adapter_config.json by which an adapter is more than two matrices beside each kernel.
_UNKNOWN = (
    "modules_to_save",
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
)
# Starts that leave the frozen weights as they are; others subtract something from them.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
# Modules of a model that have a linear map of one of these names.
_MODULES_WITH = {
    **dict.fromkeys(
        ("query", "key", "value", "out"),
        ("encoder/attention", "decoder/self_attention", "decoder/encoder_decoder_attention"),
    ),
    **dict.fromkeys(("wi", "wi_0", "wi_1", "wo"), ("encoder/mlp", "decoder/mlp")),
}


def read_adapter(path: epath.Path) -> MethodSet:
    """Reads a PEFT adapter of LoRA.

    Args:
      path: The adapter's directory; local or gs://.

    Raises:
      CheckpointError: If the adapter is of another kind or for another kind of model, damaged, or uses what LoRA here
        has not; the text names the field.
    """
    config = peft.read_config(path, kind=PEFT_KIND, what="the matrices of LoRA")
    _check_fields(path, config)
    _check_numbers(path, config)
    tensors, info = peft.read_tensors(path)
    modules = _modules_of(path, tensors)
    ranks = {m: a.shape[1] for m, (a, _) in modules.items()}
    alphas = {m: _alpha_there(config, m) for m in modules}
    is_stabilised = bool(config.get("use_rslora"))
    for module, rank in ranks.items():
        named = _by_pattern(config, "rank_pattern", module, config.get("r"))
        if named != rank:
            raise CheckpointError(
                f"The adapter {path} contradicts its own {peft.CONFIG_FILE}",
                got=f"rank {rank} at {huggingface.module_there(module)}",
                expected=f"{named}, as r or rank_pattern says",
                fix="save the adapter again, or copy it again",
            )
    at_place: dict[str, str] = {}
    for module in sorted(modules, key=lambda m: -ranks[m]):
        at_place.setdefault(place_of(module), module)
    params: dict[str, np.ndarray] = {}
    for module, (a, b) in modules.items():
        first = at_place[place_of(module)]
        scales = [_scale(alphas[m], ranks[m], is_stabilised) for m in (module, first)]
        zeros = ranks[first] - ranks[module]
        params[f"{module}/{LORA_A}"] = np.pad(a, ((0, 0), (0, zeros)))
        # As it is where the scale is the place's.
        b = b if scales[0] == scales[1] else b * np.float32(scales[0] / scales[1])
        params[f"{module}/{LORA_B}"] = np.pad(b, ((0, zeros), (0, 0)))
    settings = {
        "name": NAME,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "dropout": config.get("lora_dropout", 0.0),
        "targets": _expressions(at_place, _is_whole),
        "rank_stabilised": is_stabilised,
        "rank_pattern": _pattern({p: ranks[m] for p, m in at_place.items()}, config.get("r")),
        "alpha_pattern": _pattern(
            {p: alphas[m] for p, m in at_place.items()}, config.get("lora_alpha")
        ),
    }
    is_partial = peft.leaves_modules_out(config)
    return MethodSet(params, {**(info or {}), METHOD: settings}, absent=0.0 if is_partial else None)


def encode_adapter(found: MethodSet, *, base_model: str | None) -> dict[str, bytes]:
    """Returns the files of an adapter, by name, that `peft.PeftModel.from_pretrained` loads, the configuration last.

    Args:
      found: The matrices of every layer.
      base_model: Name on the Hugging Face hub, or path, of the model that they are for.
    """
    settings = found.info[METHOD]
    tensors, ranks, alphas = {}, {}, {}
    for path, x in found.params.items():
        module, _, name = path.rpartition("/")
        letter = "A" if name == LORA_A else "B"
        there = huggingface.module_there(module)
        tensors[f"{_PREFIX}{there}.lora_{letter}.weight"] = x.T
        place = place_of(module)
        if name == LORA_A:
            ranks[place], alphas[place] = x.shape[1], _alpha_here(settings, place)
    targets = _there(_expressions(ranks, _is_whole))
    # A list names endings of every layer; with an expression, layers may be left out.
    is_list = found.absent is None and all(name.isidentifier() for name in targets)
    config = {
        "alpha_pattern": _pattern_there(alphas, settings["alpha"]),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_alpha": settings["alpha"],
        "lora_dropout": settings["dropout"],
        "modules_to_save": None,
        "r": settings["rank"],
        "rank_pattern": _pattern_there(ranks, settings["rank"]),
        "target_modules": targets if is_list else _any_of(targets),
        "use_rslora": settings["rank_stabilised"],
    }
    return peft.encode_files(tensors, found.info, config, kind=PEFT_KIND, base_model=base_model)


def change_kernel(
    params: Mapping[str, np.ndarray], path: str, settings: Mapping[str, Any]
) -> KernelChange:
    """Returns what the matrices at one linear map make of its kernel.

    Args:
      params: Name -> matrix.
      path: The map's.
      settings: The method's.
    """
    a, b = params[LORA_A], params[LORA_B]
    alpha = _alpha_here(settings, place_of(path))
    scale = _scale(alpha, a.shape[1], settings["rank_stabilised"])
    return KernelChange(left=a, right=b * np.float32(scale))


def _check_fields(path: epath.Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError if a configuration asks for what LoRA here has not."""
    used = {name: config.get(name) for name in _UNKNOWN if config.get(name) not in (None, "none")}
    used = {name: value for name, value in used.items() if value}
    if config.get("init_lora_weights") not in _STARTS:
        used["init_lora_weights"] = config["init_lora_weights"]
    if used:
        name = next(iter(used))
        raise CheckpointError(
            f"The adapter {path} is more than LoRA: {name}",
            got=used[name],
            expected=f"two matrices beside each kernel, and no {name}",
            fix=f"train an adapter without {name}, or merge this one into its model with PEFT",
        )


def _check_numbers(path: epath.Path, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless rank and alpha, and those of their patterns, are numbers above 0."""
    for field, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        named = {field: config.get(field)}
        found = config.get(pattern) or {}
        named |= found if isinstance(found, dict) else {pattern: found}
        for name, value in named.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise CheckpointError(
                    f"{path / peft.CONFIG_FILE} has a {field if name == field else pattern} that is none",
                    got=f"{name}: {value!r}",
                    expected="a number above 0",
                    fix="copy the adapter again",
                )


def _modules_of(
    path: epath.Path, tensors: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B, as they are here, by the path of their linear map."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, x in tensors.items():
        match = _TENSOR.fullmatch(name)
        module = match and huggingface.module_here(match[1])
        if match is None or module is None or x.ndim != 2:
            raise CheckpointError(
                f"{path} holds something else than LoRA of a T5's layers",
                got=f"{name} {list(x.shape)}",
                expected="tensors [rank, inputs] and [outputs, rank] called"
                " encoder.block.0….q.lora_A.weight, ….lora_B.weight and so on",
                fix="use an adapter that holds nothing else",
            )
        found.setdefault(module, {})[match[2]] = x.T.astype(np.float32)
    for module, pair in found.items():
        shapes = {name: list(x.shape[::-1]) for name, x in pair.items()}
        if set(pair) != {"A", "B"} or pair["A"].shape[1] != pair["B"].shape[0]:
            raise CheckpointError(
                f"{path} holds no pair of matrices at {huggingface.module_there(module)}",
                got=shapes,
                expected="lora_A [rank, inputs] and lora_B [outputs, rank]",
                fix="copy the adapter again",
            )
    if not found:
        raise CheckpointError(
            f"{path} holds no LoRA",
            got="no tensors",
            expected="lora_A and lora_B of some linear maps",
            fix="use another adapter",
        )
    return {module: (pair["A"], pair["B"]) for module, pair in found.items()}


def _by_pattern(config: Mapping[str, Any], field: str, module: str, default: Any) -> Any:
    """What a pattern of PEFT's says of a module, whose name an expression matches at its end."""
    there = huggingface.module_there(module)
    pairs = (config.get(field) or {}).items()
    return next((x for key, x in pairs if re.match(rf"(.*\.)?({key})$", there)), default)


def _alpha_there(config: Mapping[str, Any], module: str) -> float:
    """The alpha of a module in PEFT."""
    return _by_pattern(config, "alpha_pattern", module, config.get("lora_alpha"))


def _alpha_here(settings: Mapping[str, Any], place: str) -> float:
    """The alpha of a place, as `LoRA.at` has it."""
    pairs = settings["alpha_pattern"]
    return next((x for regex, x in pairs if re.fullmatch(regex, place)), settings["alpha"])


def _scale(alpha: float, rank: int, is_stabilised: bool) -> float:
    """What multiplies the product, as in `LoRA.at`."""
    return alpha / (math.sqrt(rank) if is_stabilised else rank)


def _is_whole(name: str, places: Sequence[str]) -> bool:
    """Whether the places of a linear map's name are all that a model has."""
    return {place.rpartition("/")[0] for place in places} == set(_MODULES_WITH[name])


def _expressions(places: Iterable[str], is_whole: Any) -> list[str]:
    """Expressions for places: one for all of a name where these are all there are, else one each."""
    by_name: dict[str, list[str]] = {}
    for place in sorted(places):
        by_name.setdefault(place.rpartition("/")[2], []).append(place)
    out = []
    for name in sorted(by_name, key=list(_MODULES_WITH).index):
        out += [f".*/{name}"] if is_whole(name, by_name[name]) else by_name[name]
    return out


def _pattern(values: Mapping[str, Any], default: Any) -> list[list[Any]]:
    """Pairs (expression, value) of the places whose value is not the default."""
    out = []
    for value in sorted({x for x in values.values() if x != default}):
        chosen = [place for place, x in values.items() if x == value]
        is_whole = lambda name, own: len(own) == sum(p.endswith(f"/{name}") for p in values)  # noqa: E731
        out += [[regex, value] for regex in _expressions(chosen, is_whole)]
    return out


def _pattern_there(values: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """The same as PEFT has it."""
    return {_there([regex])[0]: value for regex, value in _pattern(values, default)}


def _there(expressions: Iterable[str]) -> list[str]:
    """What PEFT calls places: the letter of a name, or an expression for the modules of a place."""
    out = []
    for expression in expressions:
        if expression.startswith(".*/"):
            name = expression.removeprefix(".*/")
            out.append(huggingface.LETTERS.get(name, name))
        else:
            stack, rest = expression.split("/", 1)
            module = re.escape(huggingface.module_there(f"{stack}/layers_0/{rest}"))
            out.append(module.replace(r"block\.0\.", r"block\.\d+\."))
    return out


def _any_of(names: Iterable[str]) -> str:
    """One expression for whole names of modules, of which some are known by their last part."""
    return "|".join(rf".*\.{name}" if name.isidentifier() else name for name in names)
