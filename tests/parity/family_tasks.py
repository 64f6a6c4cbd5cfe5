"""Prompts that depend on the task or the example, and PEFT's that are saved as prompts, against the same here."""

import dataclasses
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.checkpoints.prompt_files.write import write_prompt
from prompt_tuning.models import masks
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.methods import multitask_prompt
from prompt_tuning.models.methods.alone import prompt_alone
from prompt_tuning.models.methods.attempt import Attempt
from prompt_tuning.models.methods.method import Joining, Method
from prompt_tuning.models.methods.mpt import MPT
from prompt_tuning.models.methods.multitask_prompt import MultitaskPrompt
from prompt_tuning.params import names
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.prompt import join_prompt
from prompt_tuning.types import TASK
from tests.parity import family_folder
from tests.parity.rows import NotChecked, Row, differing, largest, of_maximum, worst
from tests.parity.saved_model import load_with
from tests.parity.subjects import guarded

ENCODED = 1e-4
VECTORS = 1e-5
_SHARED, _OF_TASKS = "shared_prompt", "task_prompts/embedding"
# What the authors' set of allowed pairs is called here.
_SEES = {"prompt->prompt": "prompt", "prompt->prompt;causal": "causal", "prompt->input": "input"}


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of all cases of these kinds."""
    del vocabulary
    for file in sorted((directory / "A_peft").glob("*/adapter_config.json")):
        config = json.loads(file.read_text(encoding="utf-8"))
        compare = {"P_TUNING": _saved_prompt, "MULTITASK_PROMPT_TUNING": _mpt}.get(
            config["peft_type"]
        )
        if compare is not None:
            folder, name = file.parent, f"family/A_peft/{file.parent.name}"
            base = folder.parent / pathlib.PurePath(config["base_model_name_or_path"]).name
            yield from guarded(name, compare(name, folder, base, config))
    base = family_folder.gated_model(directory)
    for sub_folder, compare in (("B_authors", _authors_model), ("C_methods", _attempt)):
        for file in sorted((directory / sub_folder).glob("*.npz")):
            arrays, name = family_folder.read(file), f"family/{sub_folder}/{file.stem}"
            is_model = any(key.startswith("param/") and _OF_TASKS in key for key in arrays)
            if is_model or "source_prompts" in arrays:
                if base is None:
                    reason = "its model, the gated one of A_peft, is missing"
                    yield NotChecked(name.removeprefix("family/"), reason)
                else:
                    yield from guarded(name, compare(name, base, arrays))
            elif "prompt_length" in arrays and any(key.startswith("encoder/") for key in arrays):
                yield from guarded(name, _masks(name, arrays))
            elif any(key.endswith(f"/param/{_OF_TASKS}") for key in arrays):
                yield from guarded(name, _combinations(name, arrays))


def _saved_prompt(
    name: str, folder: pathlib.Path, base: pathlib.Path, config: Mapping[str, Any]
) -> Iterator[Row | NotChecked]:
    """The rows of P-tuning, of which PEFT saves the prompt that its network makes."""
    del config
    arrays = family_folder.read(folder / "golden.npz")
    prompt, _ = load_prompt(folder)
    model, frozen = load_with(base, prompt=PromptConfig(length=len(prompt)))
    params = {**frozen, PROMPT_PATH: prompt}
    yield from family_folder.case_rows(name, model, params, arrays, gradients={})
    write = lambda target: write_prompt(target, prompt, {}, file_format="peft")  # noqa: E731
    yield from family_folder.read_back(name, base, arrays, write)
    batch, own = family_folder.features(arrays), {PROMPT_PATH: jnp.asarray(prompt)}
    ours = family_folder.loss_and_gradients(model, params, own, batch)[2][PROMPT_PATH]
    start = "prompt_encoder.default."
    weights = {
        key.removeprefix(f"param/{start}"): jnp.asarray(x)
        for key, x in arrays.items()
        if key.startswith(f"param/{start}")
    }
    # What is not saved is PEFT's: its weights' gradients follow from that of the prompt.
    made, pull_back = jax.vjp(_network, weights)
    yield Row(
        f"{name}/prompt that its network makes", largest(made[: len(prompt)], prompt), VECTORS
    )
    (gradients,) = pull_back(jnp.zeros_like(made).at[: len(prompt)].set(ours))
    theirs = {key: arrays[f"grad/{start}{key}"] for key in gradients}
    measured, note = worst(of_maximum, gradients, theirs), f"{len(theirs)} arrays of its network"
    yield Row(f"{name}/gradients", measured, family_folder.GRADIENT, "relative", note)


def _network(weights: Mapping[str, jax.Array]) -> jax.Array:
    """P-tuning's network, of its weights by PyTorch's names: a bidirectional LSTM where there is one, linear maps."""
    x, layer = weights["embedding.weight"], 0
    while f"lstm_head.weight_ih_l{layer}" in weights:
        both = [_lstm(weights, x, f"l{layer}"), _lstm(weights, x[::-1], f"l{layer}_reverse")[::-1]]
        x, layer = jnp.concatenate(both, axis=1), layer + 1
    numbers = sorted(
        int(key.split(".")[1])
        for key in weights
        if key.startswith("mlp_head") and key.endswith("weight")
    )
    for number in numbers:
        x = x if number == numbers[0] else jax.nn.relu(x)
        product = jnp.matmul(x, weights[f"mlp_head.{number}.weight"].T, precision="highest")
        x = product + weights[f"mlp_head.{number}.bias"]
    return x


def _lstm(weights: Mapping[str, jax.Array], x: jax.Array, name: str) -> jax.Array:
    """What one direction of one layer gives for each row."""
    of = {
        part: weights[f"lstm_head.{part}_{name}"]
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }

    def step(carry: Any, row: jax.Array) -> Any:
        hidden, cell = carry
        products = (of["weight_ih"] @ row, of["bias_ih"], of["weight_hh"] @ hidden, of["bias_hh"])
        into, keep, new, out = jnp.split(sum(products), 4)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(out) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zero = jnp.zeros(of["weight_hh"].shape[1])
    return jax.lax.scan(step, (zero, zero), x)[1]


def _mpt(
    name: str, folder: pathlib.Path, base: pathlib.Path, config: Mapping[str, Any]
) -> Iterator[Row | NotChecked]:
    """The rows of MPT."""
    arrays = family_folder.read(folder / "golden.npz")
    prompt, found = load_prompt(folder)[0], read_set(folder)
    length, tasks = len(prompt), tuple(map(str, range(config["num_tasks"])))
    method = MPT(tasks=tasks, rank=config["num_ranks"])
    model, frozen = load_with(base, prompt=PromptConfig(length=length), method=method)
    params = {**frozen, **found.params, PROMPT_PATH: prompt}
    whole = MethodSet({**found.params, PROMPT_PATH: prompt}, {METHOD: method.describe()})
    batch = {**family_folder.features(arrays), TASK: arrays["task_ids"].astype(np.int32)}
    of_peft = {
        names.TASK_COLUMNS: "prefix_task_cols",
        names.TASK_ROWS: "prefix_task_rows",
        PROMPT_PATH.rpartition("/")[2]: "embedding.weight",
    }
    if config["num_transformer_submodules"] == 1:
        gradients = {
            path: arrays[f"grad/prompt_encoder.default.{of_peft[path.rpartition('/')[2]]}"]
            for path in (*found.params, PROMPT_PATH)
        }
        rows = family_folder.case_rows(
            name, model, params, arrays, gradients=gradients, batch=batch
        )
        yield from rows
        write = lambda target: write_set(target, whole, file_format="peft")  # noqa: E731
        yield from family_folder.read_back(name, base, arrays, write)
    else:
        # What decodes: PEFT's `generate` leaves the decoder's rows out, which its `forward` puts before the targets.
        encode = jax.jit(lambda p, b: _encode(model, p, b))
        encoded = np.asarray(encode(tree.unflatten(params), batch))
        is_real = np.pad(
            batch["encoder_input_tokens"] > 0, ((0, 0), (length, 0)), constant_values=True
        )
        theirs = arrays["encoder_output_numpy64"]
        yield Row(f"{name}/encoder output", largest(encoded[is_real], theirs[is_real]), ENCODED)
        # transformers cannot generate with more decoder than encoder layers.
        if "greedy_generate" in arrays:
            expected = arrays["greedy_generate"][:, 1:]
            predict = jax.jit(lambda p, b: model.predict(p, b, expected.shape[1])[0])
            tokens = np.asarray(predict(tree.unflatten(params), batch))
            is_open = np.ones_like(expected, bool)
            is_open[:, 1:] = np.cumprod(expected[:, :-1] != 1, axis=1).astype(bool)
            wrong = int((tokens != expected)[is_open].sum())
            yield Row(f"{name}/greedy_generate", wrong, 0, "count", f"{is_open.sum()} tokens")
        for part in ("logits, loss and gradients", "greedy_forward"):
            reason = "PEFT's forward with rows in front of the decoder, which its generate has not"
            yield NotChecked(f"{name.removeprefix('family/')}/{part}", reason)
    yield from _mpt_files(name, whole)


def _encode(model: EncoderDecoderModel, params: Any, batch: Mapping[str, Any]) -> Any:
    """The encoder's output."""
    return model.module.apply(
        {"params": params},
        batch["encoder_input_tokens"],
        enable_dropout=False,
        task=batch[TASK],
        method=model.module.encode,
    )


def _mpt_files(name: str, found: MethodSet) -> Iterator[Row]:
    """The row of an adapter that is written, and read again."""
    with tempfile.TemporaryDirectory() as made:
        folder = pathlib.Path(made) / "adapter"
        write_set(folder, found, file_format="peft")
        again = {**read_set(folder).params, PROMPT_PATH: load_prompt(folder)[0]}
    wrong = sum(differing(again[path], x) for path, x in found.params.items())
    yield Row(f"{name}/written and read", wrong, 0, "count", f"{len(found.params)} arrays")


def _authors_model(
    name: str, base: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> Iterator[Row | NotChecked]:
    """The rows of a whole model with one of the authors' multitask prompts."""
    shared_key, tasks_key = (
        next(key for key in arrays if key.startswith("param/") and key.endswith(ending))
        for ending in (_SHARED, _OF_TASKS)
    )
    shared, of_tasks = arrays[shared_key], arrays[tasks_key]
    # The first token is the task.
    ids = arrays["input_ids"][:, 1:]
    length = arrays["encoder_mask"].shape[-1] - ids.shape[1]
    plain, frozen = load_with(base)
    settings = _settings(shared.shape, of_tasks.shape[1], length, plain.config.emb_dim)
    tasks = tuple(map(str, range(len(of_tasks))))
    method = MultitaskPrompt(tasks=tasks, **settings, sees=("causal", "input"))
    is_own = settings.get("shared_features") is None
    prompt = PromptConfig(length=len(shared)) if is_own else None
    module = plain.module.clone(prompt=prompt, method=method)
    paths = {
        f"encoder/{names.TASK_PROMPTS}": tasks_key,
        PROMPT_PATH if is_own else f"encoder/{names.SHARED_PROMPT}": shared_key,
    }
    params = {**frozen, **{path: arrays[key] for path, key in paths.items()}}
    batch = family_folder.features({**arrays, "input_ids": ids})
    batch[TASK] = arrays["task_ids"].astype(np.int32)
    gradients = {path: arrays[key.replace("param/", "grad/")] for path, key in paths.items()}
    model = dataclasses.replace(plain, module=module)
    yield from family_folder.case_rows(
        name, model, params, arrays, gradients=gradients, batch=batch, greedy=()
    )
    whole = dataclasses.replace(method, sees=("prompt", "input"))
    sighted = dataclasses.replace(model, module=module.clone(method=whole))
    logits = np.asarray(jax.jit(sighted.apply)(tree.unflatten(params), batch))
    theirs, real = (
        arrays["logits_full_prompt_visibility_numpy64"],
        batch["decoder_loss_weights"] != 0,
    )
    difference = largest(logits[real], theirs[real])
    yield Row(
        f"{name}/logits where the prompt sees all of itself", difference, family_folder.LOGITS
    )
    is_real = masks.is_real_position(jnp.asarray(batch["encoder_input_tokens"]), length, None)
    ours = masks.with_prompt_visibility(masks.key_mask(is_real), length, method.sees)
    queries = np.asarray(is_real)
    wrong = differing(np.asarray(ours)[:, 0][queries], arrays["encoder_mask"][:, 0][queries] != 0)
    yield Row(f"{name}/mask", wrong, 0, "count", "of queries that are no padding")


def _settings(shared: tuple[int, ...], size: int, length: int, width: int) -> dict[str, Any]:
    """The settings that a shared part, the size of a task's part and the prompt's length belong to."""
    num_rows, features = shared
    if size == width * (features + 1):
        narrow = (
            {} if features == width else {"shared_features": features, "shared_length": num_rows}
        )
        return {"combination": multitask_prompt.PROJECT, **narrow}
    if features < width:
        narrow = {"shared_features": features, "shared_length": num_rows}
        return {"combination": multitask_prompt.CONCAT_FEATURES, **narrow}
    if length > num_rows:
        return {"combination": multitask_prompt.CONCAT, "task_length": size // width}
    return {"combination": multitask_prompt.ADD}


def _combinations(name: str, arrays: Mapping[str, np.ndarray]) -> Iterator[Row]:
    """The rows of prompts alone."""
    embedded, task = arrays["x_embed"], arrays["tokens"][:, 0].astype(np.int32)
    for key in sorted(key for key in arrays if key.endswith(f"/param/{_OF_TASKS}")):
        case = key.split("/")[0]
        shared, of_tasks = arrays[f"{case}/param/{_SHARED}"], arrays[key]
        theirs, width = arrays[f"{case}/prompt"], embedded.shape[-1]
        settings = _settings(shared.shape, of_tasks.shape[1], theirs.shape[1], width)
        method = MultitaskPrompt(tasks=tuple(map(str, range(len(of_tasks)))), **settings)
        own = None if "shared_features" in settings else shared
        params = {
            names.TASK_PROMPTS: of_tasks,
            **({names.SHARED_PROMPT: shared} if own is None else {}),
        }
        ours = prompt_alone(method, params, own, embedded, task=task)
        yield Row(f"{name}/{case}/prompt", largest(ours, theirs), VECTORS)
        joined = join_prompt(jnp.asarray(embedded[:, 1:]), ours)
        theirs = arrays[f"{case}/combined_with_input"]
        yield Row(f"{name}/{case}/with the input", largest(joined, theirs), VECTORS)


def _masks(name: str, arrays: Mapping[str, np.ndarray]) -> Iterator[Row | NotChecked]:
    """The rows of the encoder's masks."""
    tokens, length = arrays["tokens"], int(arrays["prompt_length"])
    for key in (key for key in arrays if arrays[key].ndim == 4):
        kind, _, allowed = key.partition("/")
        if kind == "decoder":
            yield NotChecked(
                f"{name.removeprefix('family/')}/{key}", "of a model that is a decoder alone"
            )
            continue
        sees = [_SEES[pair] for pair in allowed.split("|") if pair in _SEES]
        if allowed.startswith("default"):
            sees = ["causal", "input"]
        elif kind == "basic":
            sees = ["prompt", "input"]
        elif "causal" in sees:
            sees = [seen for seen in sees if seen != "prompt"]
        own = tokens[:, tokens.shape[1] + length - arrays[key].shape[-1] :]
        is_real = masks.is_real_position(jnp.asarray(own), length, None)
        ours = masks.with_prompt_visibility(masks.key_mask(is_real), length, sees)
        queries = np.asarray(is_real)
        wrong = differing(np.asarray(ours)[:, 0][queries], arrays[key][:, 0][queries] != 0)
        yield Row(f"{name}/{key}", wrong, 0, "count", "of queries that are no padding")


class _OverPadding(Attempt):
    """As the authors compute it: padding counts as tokens."""

    def prompt_of(self, joining: Joining, prompt: Any) -> Any:
        """As `Attempt`."""
        everywhere = jnp.ones_like(joining.is_token)
        return super().prompt_of(dataclasses.replace(joining, is_token=everywhere), prompt)


def _attempt(
    name: str, base: pathlib.Path, arrays: Mapping[str, np.ndarray]
) -> Iterator[Row | NotChecked]:
    """The rows of ATTEMPT."""
    keys = {
        PROMPT_PATH: ("target_prompt", False),
        f"encoder/{names.ATTEMPT_DOWN}": ("attn_W_down", True),
        f"encoder/{names.ATTEMPT_UP}": ("attn_W_up", True),
        f"encoder/{names.ATTEMPT_SCALE}": ("layer_norm.weight", False),
        f"encoder/{names.ATTEMPT_BIAS}": ("layer_norm.bias", False),
    }
    there = {path: key for path, key in keys.items() if f"param/{key[0]}" in arrays}
    of = lambda kind: {  # noqa: E731
        path: arrays[f"{kind}/{key}"].T if turned else arrays[f"{kind}/{key}"]
        for path, (key, turned) in there.items()
    }
    own, down = of("param").get(PROMPT_PATH), arrays.get("param/attn_W_down")
    settings = {
        "temperature": float(arrays["temperature"]),
        "bottleneck": None if down is None else len(down),
    }
    with tempfile.TemporaryDirectory() as made:
        sources = [
            str(pathlib.Path(made) / f"{i}.npy") for i in range(len(arrays["source_prompts"]))
        ]
        for path, x in zip(sources, arrays["source_prompts"], strict=True):
            np.save(path, x)
        method: Method = _OverPadding(sources=tuple(sources), **settings)
        prompt = None if own is None else PromptConfig(length=len(own))
        model, frozen = load_with(base, prompt=prompt, method=method)
        params = {**frozen, **of("param")}
        yield from family_folder.case_rows(
            name, model, params, arrays, gradients=of("grad"), greedy=("greedy",)
        )
        added = {p.removeprefix("encoder/"): x for p, x in of("param").items() if p != PROMPT_PATH}
        ids = arrays["input_ids"]
        embedded = np.asarray(frozen[names.EMBEDDING])[ids]
        ours = prompt_alone(method, added, own, embedded)
        ours = np.broadcast_to(ours, arrays["prompt_out"].shape)
        yield Row(f"{name}/prompt", largest(ours, arrays["prompt_out"]), VECTORS)
        # What is computed here: tokens alone.
        plain = Attempt(sources=tuple(sources), **settings)
        alone = prompt_alone(plain, added, own, embedded, is_token=arrays["attention_mask"] != 0)
        alone = np.broadcast_to(alone, arrays["prompt_out"].shape)
        whole = arrays["attention_mask"].all(axis=1)
        if whole.any():
            difference = largest(alone[whole], arrays["prompt_out"][whole])
            yield Row(
                f"{name}/prompt of rows without padding, over tokens alone", difference, VECTORS
            )
