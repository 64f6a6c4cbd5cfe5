"""Prefixes of the decoder's self-attention as adapters of Hugging Face's PEFT have them; PEFT has no others for a T5.

`prompt_embeddings` [P, 2 * n * N * D] are n pairs of rows for each position, n being `num_layers`. PEFT puts them there
twice, one after the other, since `num_transformer_submodules` is 2, and gives four to each layer, of which the first
two count: layer i has keys of row 4i and values of row 4i + 1, both modulo 2n. With an even n half of the rows is thus
never read, and layers i and i + n/2 share theirs; with an odd n every row is read once. What PEFT computes is what is
read here. A file that is written has an odd n, so that every prefix can be: with one pair more than an even number of
layers.

Source: PEFT 0.21, `peft_model.py` `PeftModel.get_prompt`, `tuners/prefix_tuning/model.py`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.params import layouts, prefix
from prompt_tuning.params.names import PREFIX
from prompt_tuning.types import Array

PEFT_KIND = "PREFIX_TUNING"
NAME = "Prefix"
_PLACE = "decoder"
_PATH = "decoder/layers_{}/self_attention/prefix_{}"
_KEY, _VALUE = "key", "value"
# In what is recorded beside tensors that are written: layers of the decoder, where the file has one more, and heads.
_LAYERS, _HEADS = "decoder_layers", "num_heads"

_is_prefix = tree.match_any([f".*/{PREFIX}"])


def read_adapter(path: epath.Path) -> MethodSet:
    """Reads a PEFT adapter of prefix tuning, whose network PEFT has folded into what it saves.

    Args:
      path: The adapter's directory; local or gs://.

    Raises:
      CheckpointError: If the adapter is of another kind or for another kind of model, or damaged.
    """
    config = peft.read_config(path, kind=PEFT_KIND, what="keys and values in front of others")
    tensors, info = peft.read_tensors(path)
    names = ("num_virtual_tokens", "num_layers", "num_attention_heads", "token_dim")
    # A number that is missing is one that does not fit.
    length, pairs, heads, width = (config.get(name) or 0 for name in names)
    found = {name: list(x.shape) for name, x in tensors.items()}
    if not heads or found != {peft.TENSOR: [length, 2 * pairs * width]}:
        raise CheckpointError(
            f"The adapter {path} contradicts its own {peft.CONFIG_FILE}, or holds something else than a prefix",
            got=found,
            expected=f"{peft.TENSOR} [num_virtual_tokens, 2 * num_layers * token_dim], where {names} are"
            f" {[length, pairs, heads, width]}",
            fix="save the adapter again, or copy it again",
        )
    if config.get("num_transformer_submodules") not in (None, 2):
        raise CheckpointError(
            f"PEFT computes nothing useful for a T5 with the adapter {path}",
            got=f"num_transformer_submodules {config['num_transformer_submodules']}",
            expected="2: PEFT then puts keys and values in front of the decoder's own",
            fix="use another adapter",
        )
    info = info or {}
    rows = tensors[peft.TENSOR].astype(np.float32).reshape(length, 2 * pairs, width)
    params = {
        _PATH.format(layer, kind): np.ascontiguousarray(rows[:, _row(layer, kind, pairs)])
        for layer in range(info.get(_LAYERS, pairs))
        for kind in (_KEY, _VALUE)
    }
    settings = {"name": NAME, "length": length, "places": [_PLACE], "hidden": None}
    # PEFT counts the encoder's layers, of which there may be more, and leaves what is over alone.
    spare = _LAYERS not in info
    return MethodSet(params, {_HEADS: heads, **info, METHOD: settings}, spare=spare)


def encode_adapter(found: MethodSet, *, base_model: str | None) -> dict[str, bytes]:
    """Returns the files of an adapter, by name, that `peft.PeftModel.from_pretrained` loads, the configuration last.

    Args:
      found: Keys and values of every layer of the decoder.
      base_model: Name on the Hugging Face hub, or path, of the model that they are for.

    Raises:
      ConfigError: If they are for other places too, or the model's heads are not recorded.
    """
    places = found.info[METHOD]["places"]
    if places != [_PLACE]:
        raise ConfigError(
            "PEFT has prefixes for the decoder's self-attention alone",
            got=f"methods.Prefix.places = {places}",
            expected=f"[{_PLACE!r}]",
            fix="export it as .safetensors",
        )
    heads = (found.info.get("model") or found.info).get(_HEADS)
    if heads is None:
        raise ConfigError(
            "The number of heads, which PEFT asks for, is not recorded with this prefix",
            got=f"{METHOD} {found.info[METHOD]} without {_HEADS}",
            expected="what a run left, or was exported from one",
            fix="export from the run",
        )
    layers = len(found.params) // 2
    pairs = layers + (layers + 1) % 2
    length, width = found.params[_PATH.format(0, _KEY)].shape
    rows = np.zeros((length, 2 * pairs, width), np.float32)
    for layer in range(layers):
        for kind in (_KEY, _VALUE):
            rows[:, _row(layer, kind, pairs)] = found.params[_PATH.format(layer, kind)]
    config = {
        "num_attention_heads": heads,
        "num_layers": pairs,
        "num_transformer_submodules": 2,
        "num_virtual_tokens": length,
        "prefix_projection": False,
        "token_dim": width,
    }
    tensors = {peft.TENSOR: rows.reshape(length, -1)}
    info = {**found.info, _LAYERS: layers}
    return peft.encode_files(tensors, info, config, kind=PEFT_KIND, base_model=base_model)


def without_network(
    arrays: Mapping[str, Array], settings: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Returns what was trained with keys and values in place of the network that makes them, and the settings.

    Args:
      arrays: Path in either layout -> array: all that was trained.
      settings: The method's (`Method.describe`).
    """
    if settings.get("hidden") is None:
        return dict(arrays), dict(settings)
    apart = layouts.take_apart(arrays)
    others = {path: x for path, x in apart.items() if not _is_prefix(path)}
    return others | prefix.fold(apart), {**settings, "hidden": None}


def _row(layer: int, kind: str, pairs: int) -> int:
    """Which row PEFT takes for the keys or the values of a layer."""
    return (4 * layer + (kind == _VALUE)) % (2 * pairs)
