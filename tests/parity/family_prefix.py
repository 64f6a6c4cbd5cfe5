"""Prefixes as PEFT and AdapterHub have them, and the authors' prompts of layers, against the same here."""

import dataclasses
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import jax
import numpy as np
from flax import linen as nn

from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.prefix import PEFT_KIND
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.models import attention
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.deep_prompt import MODES, DeepPrompt
from prompt_tuning.models.methods.method import Around, Layer
from prompt_tuning.models.methods.prefix import Prefix
from prompt_tuning.params import prefix
from prompt_tuning.params.names import DEEP_PROMPT, PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run.method_start import arrays_of
from tests.parity import family_folder
from tests.parity.rows import NotChecked, Row, differing, largest, of_maximum
from tests.parity.saved_model import load_with
from tests.parity.subjects import guarded

# AdapterHub's names of our places.
_PLACES = {"encoder_prefix": "encoder", "self_prefix": "decoder", "cross_prefix": "cross"}
_NETWORK = {
    "wte.weight": "embedding",
    "control_trans.0.weight": "kernel",
    "control_trans.0.bias": "bias",
}
_AUTHORS = re.compile(r"encoder/layers_(\d+)/prompt/prompt/prompt")
_GRADIENT = 1e-5
Arrays = dict[str, np.ndarray]
Rows = Iterator[Row | NotChecked]


def comparisons(directory: pathlib.Path, vocabulary: pathlib.Path | None) -> Rows:
    """Yields the rows of all cases of these kinds."""
    del vocabulary
    for config_file in sorted((directory / "A_peft").glob("*/adapter_config.json")):
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if config["peft_type"] == PEFT_KIND:
            folder = config_file.parent
            base = folder.parent / pathlib.PurePath(config["base_model_name_or_path"]).name
            name = f"family/A_peft/{folder.name}"
            yield from guarded(name, _of_peft(name, folder, base, config))
    gated = family_folder.gated_model(directory)
    for file in sorted(
        p for n in ("B_authors", "B_prefix_full") for p in directory.glob(f"{n}/*.npz")
    ):
        arrays, case = family_folder.read(file), f"{file.parent.name}/{file.stem}"
        if {"prompt", "x_embed", *MODES} <= set(arrays):
            yield from guarded(f"family/{case}", _functions(f"family/{case}", arrays))
            continue
        compare = _kind_of(arrays)
        if compare is None:
            continue
        if gated is None:
            yield NotChecked(case, "its model, the gated one of A_peft, is missing")
            continue
        yield from guarded(f"family/{case}", compare(f"family/{case}", gated, arrays, file))


def _kind_of(arrays: Arrays) -> Any:
    """What compares a file, by what is in it; None for a file of another kind."""
    if any(_AUTHORS.fullmatch(path.removeprefix("param/")) for path in arrays):
        return _of_authors
    if any(re.fullmatch(r"key/\w+_prefix/0", name) for name in arrays):
        return _of_adapterhub
    return _property if {"x", "out_full", "prefix_key", "prefix_value"} <= set(arrays) else None


def _of_peft(name: str, folder: pathlib.Path, base: pathlib.Path, config: dict[str, Any]) -> Rows:
    """The rows of one adapter of PEFT's."""
    arrays, found = family_folder.read(folder / "golden.npz"), read_set(folder)
    settings = {key: x for key, x in found.info[METHOD].items() if key != "name"}
    model, frozen = load_with(base, method=Prefix(**settings))
    own = arrays_of(model, found, "METHOD_FILE")
    params = {**frozen, **own}
    yield from family_folder.case_rows(name, model, params, arrays, gradients={})
    batch = family_folder.features(arrays)
    _, _, gradients = family_folder.loss_and_gradients(model, params, own, batch)
    ours = _parameters_of_peft(gradients, arrays, config)
    measured = max(of_maximum(x, arrays[f"grad/{key}"]) for key, x in ours.items())
    note = f"{len(ours)} arrays, each as a share of its maximum"
    yield Row(f"{name}/gradients", measured, _GRADIENT, "relative", note)
    whole = MethodSet(own, found.info)
    write = lambda target: write_set(target, whole, file_format="peft")  # noqa: E731
    yield from family_folder.read_back(name, base, arrays, write)
    with tempfile.TemporaryDirectory() as made:
        write(pathlib.Path(made) / "adapter")
        again = read_set(pathlib.Path(made) / "adapter").params
    wrong = sum(differing(again.get(path, ()), x) for path, x in own.items())
    yield Row(f"{name}/numbers after a round trip", wrong, 0, "count")


def _parameters_of_peft(gradients: Arrays, arrays: Arrays, config: dict[str, Any]) -> Arrays:
    """The gradients of PEFT's parameters, by name, from those of the keys and values that they make."""
    pairs, width = config["num_layers"], config["token_dim"]
    rows = np.zeros((config["num_virtual_tokens"], 2 * pairs, width), np.float32)
    for path, gradient in gradients.items():
        layer = int(path.split("/")[1].removeprefix("layers_"))
        # What layers share adds up.
        rows[:, (4 * layer + path.endswith("value")) % (2 * pairs)] += gradient
    of_matrix = rows.reshape(len(rows), -1)
    names = [key.removeprefix("grad/") for key in arrays if key.startswith("grad/")]
    if len(names) == 1:
        return {names[0]: of_matrix}

    def network(weights: Arrays) -> Any:
        part = lambda ending: next(x for key, x in weights.items() if key.endswith(ending))  # noqa: E731
        shared = prefix.features(
            part("embedding.weight"), part("transform.0.weight").T, part("transform.0.bias")
        )
        return prefix.made(shared, part("transform.2.weight").T, part("transform.2.bias"))

    _, backward = jax.vjp(network, {key: arrays[f"param/{key}"] for key in names})
    return {key: np.asarray(x) for key, x in backward(of_matrix)[0].items()}


def _of_adapterhub(name: str, base: pathlib.Path, arrays: Arrays, file: pathlib.Path) -> Rows:
    """The rows of prefixes of several places, with the positions that AdapterHub counts and with ours."""
    keys = {key: x for key, x in arrays.items() if re.fullmatch(r"(key|value)/\w+/\d+", key)}
    theirs = sorted({key.split("/")[1] for key in keys})
    length = next(iter(keys.values())).shape[1]
    has_network = any(key.endswith("wte.weight") for key in arrays)
    described = file.parent / f"adapterhub_{file.stem}" / "adapter_config.json"
    settings = json.loads(described.read_text())["config"] if described.is_file() else {}
    if has_network and settings.get("non_linearity", "tanh") != "tanh":
        case = name.removeprefix("family/")
        yield NotChecked(f"{case}/network", f"its activation is {settings['non_linearity']}")
        has_network = False
    folded = {_path(key): _joined(x) for key, x in keys.items()}
    method = Prefix(length=length, places=tuple(_PLACES[place] for place in theirs))
    model, frozen = load_with(base, method=method)
    ours = {
        **arrays,
        "logits": arrays["logits_unshifted_positions"],
        "loss": arrays["loss_unshifted_positions"],
        "greedy_forward": arrays["greedy_unshifted_positions"],
        "greedy_forward_margin": arrays["greedy_margin"],
    }
    params = {**frozen, **folded}
    yield from family_folder.case_rows(name, model, params, ours, gradients={})
    yield _encoded(name, model, params, arrays, "encoder_output_unshifted_positions")
    trained, gradients = folded, _gradients(arrays, theirs, keys)
    if has_network:
        hidden = next(x.shape[0] for k, x in arrays.items() if k.endswith("control_trans.0.weight"))
        method = dataclasses.replace(method, hidden=hidden)
        model, _ = load_with(base, method=method)
        trained, gradients = (_network(arrays, kind, keys) for kind in ("param", "grad"))
        made = prefix.fold(trained)
        difference = max(largest(made[path], x) for path, x in folded.items())
        yield Row(f"{name}/keys and values of the network", difference, 1e-5)
    params = {**frozen, **trained}
    area = f"{name}/with AdapterHub's positions"
    with mock.patch.object(attention, "relative_position_bias", _adapterhub_bias):
        rows = list(family_folder.case_rows(area, model, params, arrays, gradients=gradients))
        rows.append(_encoded(area, model, params, arrays, "encoder_output"))
    yield from rows


_our_bias = attention.relative_position_bias


def _adapterhub_bias(table: Any, queries: np.ndarray, keys: np.ndarray, **kwargs: Any) -> jax.Array:
    """The bias with queries that are counted from 0, and keys from the prefix."""
    return _our_bias(table, queries - (len(keys) - len(queries)), keys, **kwargs)


def _path(key: str) -> str:
    """Our path of `key/PLACE/LAYER` or `value/PLACE/LAYER`."""
    kind, place, layer = key.split("/")
    stack, name = prefix.PLACES[_PLACES[place]]
    return f"{stack}/layers_{layer}/{name}/prefix_{kind}"


def _joined(x: np.ndarray) -> np.ndarray:
    """[N, P, D] as [P, N * D]."""
    return np.moveaxis(x, 0, 1).reshape(x.shape[1], -1)


def _named(arrays: Arrays, kind: str, place: str, ending: str) -> np.ndarray:
    """One of AdapterHub's parameters, or its gradient."""
    end = f".{place}.{ending}"
    return next(x for key, x in arrays.items() if key.startswith(f"{kind}/") and key.endswith(end))


def _gradients(arrays: Arrays, places: list[str], keys: Arrays) -> Arrays:
    """The gradients of keys and values that are trained themselves; nothing where a network makes them."""
    if any(key.endswith("wte.weight") for key in arrays):
        return {}
    out = {}
    for place in places:
        of_place = [key for key in keys if f"/{place}/" in key]
        heads, length, depth = keys[of_place[0]].shape
        flat = _named(arrays, "grad", place, "control_trans").reshape(length, -1, heads * depth)
        for key in of_place:
            out[_path(key)] = flat[:, 2 * int(key.split("/")[2]) + key.startswith("value")]
    return out


def _network(arrays: Arrays, kind: str, keys: Arrays) -> Arrays:
    """AdapterHub's network, or its gradients, by our paths."""
    out = {}
    for place in {key.split("/")[1] for key in keys}:
        stack = prefix.PLACES[_PLACES[place]][0]
        for theirs, ours in _NETWORK.items():
            x = _named(arrays, kind, place, theirs)
            out[f"{stack}/prefix_{_PLACES[place]}_{ours}"] = x.T if ours == "kernel" else x
    for key, x in keys.items():
        place, layer, width = key.split("/")[1], int(key.split("/")[2]), x.shape[0] * x.shape[2]
        first = (2 * layer + key.startswith("value")) * width
        for theirs, ours in (
            ("control_trans.2.weight", "kernel"),
            ("control_trans.2.bias", "bias"),
        ):
            part = _named(arrays, kind, place, theirs)[first : first + width]
            out[f"{_path(key)}_{ours}"] = part.T
    return out


def _encoded(name: str, model: EncoderDecoderModel, params: dict, arrays: Arrays, key: str) -> Row:
    """The row of the encoder's output at real positions."""
    tokens = family_folder.features(arrays)["encoder_input_tokens"]
    encode = lambda params: model.module.apply(  # noqa: E731
        {"params": params}, tokens, enable_dropout=False, method=model.module.encode
    )
    ours, real = np.asarray(jax.jit(encode)(tree.unflatten(params))), tokens > 0
    return Row(
        f"{name}/encoder output", largest(ours[real], arrays[key][real]), family_folder.LOGITS
    )


def _property(name: str, base: pathlib.Path, arrays: Arrays, file: pathlib.Path) -> Rows:
    """The row of attention whose first tokens are its prefix."""
    del file
    _, frozen = load_with(base)
    place = "encoder/layers_0/attention"
    params = {p.removeprefix(f"{place}/"): x for p, x in frozen.items() if p.startswith(place)}
    keys, values = (np.moveaxis(arrays[f"prefix_{kind}"], 1, 2) for kind in ("key", "value"))
    rows, length = keys.shape[:2]
    for kind, x in (("key", keys), ("value", values)):
        params[f"prefix_{kind}"] = x.reshape(rows, length, -1)
    model, _ = load_with(base, method=Prefix(length=length, places=("encoder",)))
    assert isinstance(model.config, T5Config)
    module = attention.Attention(
        model.config, deterministic=True, method=model.method, name="attention"
    )
    behind = arrays["x"][:, length:]
    out = module.apply({"params": tree.unflatten(params)}, behind, behind, around=Around({}))
    difference = largest(out, arrays["out_full"][:, length:])
    yield Row(f"{name}/keys and values of tokens as a prefix", difference, 1e-5)


def _of_authors(name: str, base: pathlib.Path, arrays: Arrays, file: pathlib.Path) -> Rows:
    """The rows of a whole model with the authors' prompts of layers."""
    del file
    of_kind = lambda kind: {  # noqa: E731
        _AUTHORS.sub(rf"encoder/layers_\1/{DEEP_PROMPT}", key.removeprefix(f"{kind}/")): x
        for key, x in arrays.items()
        if key.startswith(f"{kind}/")
    }
    added, gradients = of_kind("param"), of_kind("grad")
    # What stands in place of the embedded prompt leaves it no gradient.
    mode = "add" if gradients[PROMPT_PATH].any() else "replace"
    prompt = PromptConfig(length=len(added[PROMPT_PATH]))
    model, frozen = load_with(base, prompt=prompt, method=DeepPrompt(mode=mode))
    yield from family_folder.case_rows(
        name, model, {**frozen, **added}, arrays, gradients=gradients
    )


class _Calls(nn.Module):
    """A layer that returns its input as a method makes it."""

    method: DeepPrompt
    length: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return self.method.layer_input_of(Layer(self, self.length, None), x)


def _functions(name: str, arrays: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The rows of the authors' functions by themselves."""
    prompt = arrays["prompt"]
    for mode in MODES:
        layer = _Calls(DeepPrompt(mode=mode), prompt.shape[1])
        ours = layer.apply({"params": {DEEP_PROMPT: prompt}}, arrays["x_embed"])
        yield Row(f"{name}/{mode}", largest(ours, arrays[mode]), 0)
