"""Reference numbers of cheaper prompts: the residual reparametrization, DePT and wayward prompts.

A file of the residual reparametrization says neither its activation nor whether its MLP is applied twice: of all that
there are, the one whose prompt is nearest to the file's is compared, and named in the row of the prompt.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files.residual import fold
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods.dept import DePT
from prompt_tuning.models.methods.method import Method
from prompt_tuning.models.methods.residual import Residual
from prompt_tuning.models.methods.wayward import Wayward
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import residual
from prompt_tuning.params.names import DEPT_A, DEPT_B, EMBEDDING, PROMPT_PATH, is_added
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.initializers import FromText
from tests.parity import family_folder
from tests.parity.rows import NotChecked, Row, largest, of_maximum
from tests.parity.saved_model import load
from tests.parity.subjects import guarded

_COUNTS = (
    (r"DePT P=(?P<rows>\d+) S=(?P<max_length>\d+) r=(?P<rank>\d+)", DePT),
    (r"residual P=(?P<rows>\d+) b=(?P<hidden>\d+) MLP1\+LN", Residual),
)


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of every case of these methods, and of every count of their parameters."""
    del vocabulary
    base = family_folder.gated_model(directory)
    for file in sorted((directory / "C_methods").glob("*.npz")):
        arrays, name = family_folder.read(file), f"family/C_methods/{file.stem}"
        compare = _dept if "param/lora_embedding_A" in arrays else None
        if any(key.startswith("param/mlp") for key in arrays):
            compare = _residual
        if compare is not None and base is None:
            reason = "its model, the gated one of A_peft, is missing"
            yield NotChecked(name.removeprefix("family/"), reason)
        elif compare is not None and base is not None:
            yield from guarded(name, compare(name, base, arrays))
    for file in sorted((directory / "B_authors").glob("*.npz")):
        arrays, name = family_folder.read(file), f"family/B_authors/{file.stem}"
        if {"prompt", "discrete", "distance"} <= set(arrays):
            yield from guarded(name, _wayward(name, arrays))
    report = directory / "C_methods" / "report.json"
    if report.is_file():
        for title, numbers in json.loads(report.read_text(encoding="utf-8"))["counts"].items():
            if width := re.search(r"\(d (\d+)\)", title):
                yield from _counts(numbers, int(width[1]))


def _dept(name: str, base: pathlib.Path, arrays: dict[str, np.ndarray]) -> Iterator[Row]:
    """The rows of DePT."""
    ours = {"prompt": PROMPT_PATH, "lora_embedding_A": f"encoder/{DEPT_A}"}
    ours["lora_embedding_B"] = f"encoder/{DEPT_B}"
    params, gradients = (
        {path: arrays[f"{kind}/{theirs}"] for theirs, path in ours.items()}
        for kind in ("param", "grad")
    )
    length, rank = arrays["param/lora_embedding_A"].shape
    method = DePT(rank=rank, alpha=float(arrays["alpha"]), max_length=length)
    scale = method.alpha / math.sqrt(rank)
    yield Row(f"{name}/scale", of_maximum(scale, arrays["scaling"]), 1e-6, "relative")
    yield from _rows(name, base, method, params, gradients, arrays)


def _residual(name: str, base: pathlib.Path, arrays: dict[str, np.ndarray]) -> Iterator[Row]:
    """The rows of the residual reparametrization."""
    weights, gradients = _residual_arrays("param", arrays), _residual_arrays("grad", arrays)
    kernel = weights[residual.DOWN]
    settings = {"hidden": kernel.shape[-1], "layer_norm": residual.NORM in weights}
    settings["separate"] = kernel.ndim == 3
    params = {PROMPT_PATH: arrays["param/prompt"]}
    params |= {f"encoder/{key}": x for key, x in weights.items()}
    measured = {}
    for activation, repeats in itertools.product(residual.ACTIVATIONS, (1, 2)):
        method = Residual(**settings, activation=activation, repeats=repeats)
        made = fold(params, method.describe())[PROMPT_PATH]
        measured[method] = largest(made, arrays["prompt_out"])
    method = min(measured, key=lambda m: measured[m])
    note = f"{method.activation}, {method.repeats} times"
    yield Row(f"{name}/prompt", measured[method], family_folder.LOSS, note=note)
    whole = {PROMPT_PATH: arrays["grad/prompt"]}
    whole |= {f"encoder/{key}": x for key, x in gradients.items()}
    yield from _rows(name, base, method, params, whole, arrays)


def _residual_arrays(kind: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a file has of one MLP, or of one for each row, stacked, by our names."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    found = [re.fullmatch(rf"{kind}/(mlp\d*)/module\.(\d+)\.weight", key) for key in arrays]
    for match in sorted(filter(None, found), key=lambda m: (len(m[1]), m[1], int(m[2]))):
        mlp = modules.setdefault(match[1], {})
        weight, bias = arrays[match[0]], arrays[match[0].replace(".weight", ".bias")]
        named = (residual.UP, residual.UP_BIAS)
        if weight.ndim == 1:
            named = (residual.NORM, residual.NORM_BIAS)
        elif not mlp:
            named = (residual.DOWN, residual.DOWN_BIAS)
        mlp.update(zip(named, (weight.T, bias), strict=True))
    first, *others = modules.values()
    if not others:
        return first
    return {key: np.stack([mlp[key] for mlp in modules.values()]) for key in first}


def _rows(
    name: str,
    base: pathlib.Path,
    method: Method,
    params: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    arrays: Mapping[str, np.ndarray],
) -> Iterator[Row]:
    """The rows of a whole model."""
    model, frozen = load(base, scan_layers=False)
    prompt = PromptConfig(len(params[PROMPT_PATH]))
    model = dataclasses.replace(model, module=model.module.clone(method=method, prompt=prompt))
    flat = {**tree.flatten(frozen), **params}
    yield from family_folder.case_rows(
        name, model, flat, arrays, gradients=gradients, greedy=("greedy",)
    )


def _wayward(name: str, arrays: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The rows of a wayward prompt's term, without gamma, as they have it, and of their gamma."""
    rows = len(arrays["discrete"])
    # The text whose tokens are the rows of the table.
    method = Wayward(target=FromText("text"), gamma=1.0)
    params: dict[str, Any] = {EMBEDDING: arrays["discrete"], PROMPT_PATH: arrays["prompt"]}

    def term(prompt):
        return method.penalty(
            tree.unflatten({**params, PROMPT_PATH: prompt}), lambda text: list(range(rows))
        )

    value, gradient = jax.value_and_grad(term)(arrays["prompt"])
    yield Row(f"{name}/distance", of_maximum(value, arrays["distance"]), 1e-6, "relative")
    if "gradient" in arrays:
        # Of the distance, or of the term with their gamma.
        scales = (1.0, float(arrays["gamma_default"]))
        measured = min(of_maximum(gradient * s, arrays["gradient"]) for s in scales)
        yield Row(f"{name}/gradient", measured, 1e-6, "relative")
    gamma = Wayward(target=FromText("text")).gamma
    yield Row(f"{name}/gamma", of_maximum(gamma, arrays["gamma_default"]), 1e-6, "relative")


def _counts(numbers: Mapping[str, int], width: int) -> Iterator[Row]:
    """The rows of how many parameters these methods have in a model of some width."""
    sizes: dict[str, Any] = {
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "num_heads": 1,
        "head_dim": 1,
    }
    config = T5Config(vocab_size=1, emb_dim=width, mlp_dim=1, **sizes)
    for title, expected in numbers.items():
        for regex, kind in _COUNTS:
            if match := re.fullmatch(regex, title):
                settings: dict[str, Any] = {n: int(x) for n, x in match.groupdict().items()}
                prompt = PromptConfig(settings.pop("rows"))
                model = EncoderDecoderModel(T5(config, prompt, kind(**settings)), None, None)
                shapes = [x.shape for path, x in model.param_shapes.items() if is_added(path)]
                ours = sum(map(math.prod, shapes))
                name = f"family/C_methods/counts/{title}"
                yield Row(name, abs(ours - expected), 0, "count", f"{ours:,}")
