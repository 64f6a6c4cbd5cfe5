"""Adapters of LoRA, (IA)3 and plain prompts as PEFT has them, and the authors' (IA)3, against the same here."""

import importlib.util
import json
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface
from prompt_tuning.checkpoints.method_files.merged import MergedSource
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.checkpoints.prompt_files.write import write_prompt
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.layers import Dense
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.models.methods.method import Method
from prompt_tuning.params.names import IA3_SCALING, LORA_B, PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run.method_start import arrays_of
from tests.helpers import tiny_config
from tests.parity import family_folder, float64
from tests.parity.rows import NotChecked, Row, differing, largest, of_maximum
from tests.parity.saved_model import load, load_with
from tests.parity.subjects import guarded

METHODS = {"IA3": IA3, "LoRA": LoRA}
MERGED = 1e-4
WEIGHTS = 1e-6
# Of a LoRA, as the reference numbers' README has it: PEFT's own in float32 are up to 3.1e-5 of the largest entry away
# from its own in float64 (rank-stabilised, alpha 8 at rank 4), ours 7.4e-5 from ours. Where that is more than rounding
# leaves elsewhere, both are compared in float64 as well, in which they are 1e-13 apart; files of adapters round that.
LORA_GRADIENT = 1e-4
FLOAT64 = 1e-6


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of all cases of these kinds."""
    del vocabulary
    bases: set[str] = set()
    for config_file in sorted((directory / "A_peft").glob("*/adapter_config.json")):
        config = json.loads(config_file.read_text(encoding="utf-8"))
        folder, kind = config_file.parent, config["peft_type"]
        name = f"family/A_peft/{folder.name}"
        base = folder.parent / pathlib.PurePath(config["base_model_name_or_path"]).name
        arrays = family_folder.read(folder / "golden.npz")
        if base.name not in bases:
            bases.add(base.name)
            yield from _plain(f"family/A_peft/{base.name}", base, arrays)
        compare = {"IA3": _adapter, "LORA": _adapter, "PROMPT_TUNING": _prompt}.get(kind)
        if compare is not None:
            yield from guarded(name, compare(name, folder, base, arrays))
    authors = directory / "B_authors"
    base = family_folder.gated_model(directory)
    for file in sorted(authors.glob("model_*.npz")):
        arrays = family_folder.read(file)
        if any(path.endswith(f"/{IA3_SCALING}") for path in arrays):
            name = f"B_authors/{file.stem}"
            if base is None:
                yield NotChecked(name, "its model, the gated one of A_peft, is missing")
            else:
                rows = _authors_model(f"family/{name}", base, arrays)
                yield from guarded(f"family/{name}", rows)
    for file in sorted(authors.glob("*.npz")):
        arrays = family_folder.read(file)
        if {"x", "scaling", "out"} <= set(arrays):
            yield from _authors_modules(f"family/B_authors/{file.stem}", arrays)


def _plain(name: str, base: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The row of a model without an adapter."""
    model, params = load(base, scan_layers=False)
    batch = family_folder.features(arrays)
    logits, real = np.asarray(jax.jit(model.apply)(params, batch)), arrays["labels"] != -100
    theirs = arrays["logits_without_adapter"]
    yield Row(f"{name}/logits", largest(logits[real], theirs[real]), family_folder.LOGITS)


def _adapter(
    name: str, folder: pathlib.Path, base: pathlib.Path, arrays: dict[str, np.ndarray]
) -> Iterator[Row | NotChecked]:
    """The rows of one adapter that adds parameters inside the layers."""
    found = read_set(folder)
    model, frozen = load_with(base, method=_method_of(found))
    own = arrays_of(model, found, "METHOD_FILE")
    params = {**frozen, **own}
    # Of layers that the adapter leaves out PEFT has none.
    gradients = _gradients_of(folder, arrays, found)
    is_lora = isinstance(model.method, LoRA)
    tolerance = LORA_GRADIENT if is_lora else family_folder.GRADIENT
    for row in family_folder.case_rows(
        name, model, params, arrays, gradients=gradients, gradient=tolerance
    ):
        yield row
        if row.name == f"{name}/gradients" and row.measured > family_folder.GRADIENT:
            yield _in_float64(row.name, folder, base, model, params, arrays, found)
    yield from _merged(name, base, found, arrays)
    whole = MethodSet(own, found.info)
    write = lambda target: write_set(target, whole, file_format="peft")  # noqa: E731
    yield from family_folder.read_back(name, base, arrays, write)
    yield _round_trip(name, whole, write, lambda path: read_set(path).params)


def _method_of(found: MethodSet) -> Method:
    """The method that a set is of, with the settings that it says."""
    settings = dict(found.info[METHOD])
    return METHODS[settings.pop("name")](**settings)


def _gradients_of(
    folder: pathlib.Path, arrays: Mapping[str, np.ndarray], found: MethodSet
) -> dict[str, np.ndarray]:
    """The gradients in a file, read as the adapter whose parameters' they are."""
    tensors = {
        name.removeprefix("grad/").replace(".default", ""): np.ascontiguousarray(x)
        for name, x in arrays.items()
        if name.startswith("grad/")
    }
    with tempfile.TemporaryDirectory() as made:
        shutil.copy(folder / peft.CONFIG_FILE, made)
        safetensors.numpy.save_file(tensors, pathlib.Path(made) / peft.WEIGHTS_FILE)
        read = read_set(made).params
    stored = {
        f"{huggingface.module_here(match[1])}/{LORA_B}": x.T
        for name, x in tensors.items()
        if (match := re.fullmatch(r"base_model\.model\.(.+)\.lora_B\.weight", name))
    }
    out = {}
    for path, x in read.items():
        theirs = stored.get(path)
        # A B that takes in a scale of its own has the gradient divided by it, where the reader multiplied.
        scale = 1.0 if theirs is None else np.abs(x).max() / (np.abs(theirs).max() or 1.0)
        out[path] = x / np.float32(scale or 1.0) ** 2
    assert set(out) == set(found.params)
    return out


def _in_float64(
    name: str,
    folder: pathlib.Path,
    base: pathlib.Path,
    model: EncoderDecoderModel,
    params: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    found: MethodSet,
) -> Row | NotChecked:
    """The row of a LoRA's gradients without float32's roundings, where PEFT is installed."""
    name = f"{name} in float64"
    if importlib.util.find_spec("peft") is None:
        return NotChecked(name.removeprefix("family/"), "PEFT is not installed")
    computed = float64.theirs(folder, base, arrays)
    named = {f"grad/{key}": x.astype(np.float32) for key, x in computed.items()}
    theirs = _gradients_of(folder, named, found)
    ours = float64.ours(model, params, [*theirs], family_folder.features(arrays))
    measured = of_maximum(family_folder.joined(ours), family_folder.joined(theirs))
    return Row(name, measured, FLOAT64, "relative", f"{len(theirs)} arrays")


def _merged(
    name: str, base: pathlib.Path, found: MethodSet, arrays: Mapping[str, np.ndarray]
) -> Iterator[Row]:
    """The rows of the weights with the adapter in them."""
    source = MergedSource(open_source(base), found)
    weights = {
        f"{huggingface.module_here(key.split('/')[1].removesuffix('.weight'))}/kernel": x.T
        for key, x in arrays.items()
        if key.startswith("merged/")
    }
    if weights:
        differences = [largest(source.read(path), x) for path, x in weights.items()]
        note = f"{len(weights)} kernels"
        yield Row(f"{name}/merged kernels", max(differences), WEIGHTS, note=note)
    if "merged_logits" in arrays:
        model, _ = load(base, scan_layers=False)
        params = tree.unflatten({path: source.read(path) for path in model.param_shapes})
        logits = np.asarray(jax.jit(model.apply)(params, family_folder.features(arrays)))
        real = arrays["labels"] != -100
        difference = largest(logits[real], arrays["merged_logits"][real])
        yield Row(f"{name}/merged logits", difference, MERGED)


def _prompt(
    name: str, folder: pathlib.Path, base: pathlib.Path, arrays: dict[str, np.ndarray]
) -> Iterator[Row | NotChecked]:
    """The rows of one plain prompt."""
    prompt, _ = load_prompt(folder)
    model, frozen = load_with(base, prompt=PromptConfig(length=len(prompt)))
    (gradient,) = (x for key, x in arrays.items() if key.startswith("grad/"))
    # What PEFT keeps for a decoder is never used.
    yield Row(f"{name}/gradient of unused rows", np.abs(gradient[len(prompt) :]).sum(), 0)
    yield from family_folder.case_rows(
        name,
        model,
        {**frozen, PROMPT_PATH: prompt},
        arrays,
        gradients={PROMPT_PATH: gradient[: len(prompt)]},
    )
    write = lambda target: write_prompt(target, prompt, {}, file_format="peft")  # noqa: E731
    yield from family_folder.read_back(name, base, arrays, write)
    whole = MethodSet({PROMPT_PATH: prompt}, {})
    yield _round_trip(name, whole, write, lambda path: {PROMPT_PATH: load_prompt(path)[0]})


def _round_trip(
    name: str,
    found: MethodSet,
    write: Callable[[pathlib.Path], None],
    read: Callable[[pathlib.Path], Mapping[str, np.ndarray]],
) -> Row:
    """The row of what is written as an adapter and read again."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "adapter"
        write(target)
        again = read(target)
    wrong = sum(differing(again.get(path, ()), x) for path, x in found.params.items())
    return Row(f"{name}/numbers after a round trip", wrong, 0, "count")


def _authors_model(
    name: str, base: pathlib.Path, arrays: dict[str, np.ndarray]
) -> Iterator[Row | NotChecked]:
    """The rows of a whole model with the authors' (IA)3."""
    added = {
        _path_here(key.removeprefix("param/")): x.reshape(-1)
        for key, x in arrays.items()
        if key.startswith("param/") and key.endswith(f"/{IA3_SCALING}")
    }
    maps = {path.split("/")[-2] for path in added}
    model, frozen = load_with(base, method=IA3(outputs=tuple(maps - {"wo"}), inputs=("wo",)))
    gradients = {
        _path_here(key.removeprefix("grad/")): x.reshape(-1)
        for key, x in arrays.items()
        if key.startswith("grad/")
    }
    yield from family_folder.case_rows(
        name, model, {**frozen, **added}, arrays, gradients=gradients
    )


def _path_here(path: str) -> str:
    """Our path of the authors' factors; those of the hidden units are on the input of `wo`, which is the same."""
    for theirs, ours in (("k_conv", "key"), ("v_conv", "value"), ("q_conv", "query")):
        path = path.replace(f"/{theirs}/", f"/{ours}/")
    return path.replace("/intermediate_conv/", "/wo/")


def _authors_modules(name: str, arrays: dict[str, np.ndarray]) -> Iterator[Row]:
    """The rows of the authors' module by itself: our linear map with the identity in place of its kernel."""
    for ending in ("", "_heads"):
        if f"x{ending}" not in arrays:
            continue
        x, scaling, out = (arrays[f"{key}{ending}"] for key in ("x", "scaling", "out"))
        axes = ("embed", "joined_kv") if ending else ("embed", "mlp")
        dense = Dense(tiny_config(), scaling.shape, axes, method=IA3(), name="key")
        flat = x.reshape(*x.shape[: x.ndim - scaling.ndim], scaling.size)
        params = {
            "kernel": np.eye(scaling.size, dtype=np.float32),
            IA3_SCALING: scaling.reshape(-1),
        }
        ours = dense.apply({"params": params}, flat)
        yield Row(f"{name}/out{ending}", largest(ours, out), 0)
