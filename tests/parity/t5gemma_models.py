"""Logits, losses, prompt gradients and greedy tokens of models with other special ids than T5's."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats.huggingface import HuggingFaceSource
from prompt_tuning.checkpoints.load import load_params
from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma.config import T5GemmaConfig
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.losses import token_cross_entropy
from tests.golden.check import GEMMA_CASES
from tests.parity import subjects
from tests.parity.rows import NotChecked, Row, largest, of_maximum

LOGITS = 1e-4
LOSS = 1e-5
GRADIENT = 1e-4
BF16_FACTOR = 2.0
# Of the reference's two best logits: below it, either may win.
MARGIN = 1e-3
_FAMILIES = {"t5": (T5, T5Config), "t5gemma": (T5Gemma, T5GemmaConfig)}
# What reference numbers of other versions, and of modules without a prompt, are there for.
_NOT_OURS = ("tf523_",)


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of every case that is there; `vocabulary` is not used."""
    del vocabulary
    for part in GEMMA_CASES:
        for file in sorted((directory / part).rglob("golden.npz")):
            name = f"t5gemma/{file.parent.relative_to(directory).as_posix()}"
            yield from subjects.guarded(name, _rows(file.parent, name))


class Case:
    """One model of the folder and what was computed with it.

    Args:
      folder: With `config.json`, weights and `golden.npz`.

    Attributes:
      source: The model.
      arrays: The arrays of `golden.npz`.
      config: The architecture, float32.
      batch: Model features, made of the arrays.
      is_target: [B, T], True where there is a label.
      is_input: [B, L], True where there is a token.
    """

    def __init__(self, folder: pathlib.Path):
        self.source = HuggingFaceSource(folder)
        with np.load(folder / "golden.npz") as arrays:
            self.arrays = dict(arrays)
        family = self.source.config["model_type"].removesuffix("2")
        self._module, config = _FAMILIES[family]
        assert self.source.settings is not None
        self.config = config(**self.source.settings, dropout_rate=0.0, dtype="float32")
        labels, pad = self.arrays["labels"], self.config.ids.pad
        self.is_target = labels != -100
        self.is_input = self.arrays["attention_mask"] == 1
        tokens = self.arrays["input_ids"]
        assert np.array_equal(self.is_input, tokens != pad), "padding is told by its id"
        batch = {
            "encoder_input_tokens": tokens,
            "decoder_input_tokens": self.arrays["decoder_input_ids"],
            "decoder_target_tokens": np.where(self.is_target, labels, pad),
        }
        self.batch = {name: jnp.asarray(x, jnp.int32) for name, x in batch.items()}

    def model(self, *, has_prompt: bool, **fields: Any) -> EncoderDecoderModel:
        """Returns the model, with a prompt as long as the case's or without one."""
        prompt = PromptConfig(length=len(self.arrays["prompt"])) if has_prompt else None
        config = dataclasses.replace(self.config, **fields)
        return EncoderDecoderModel(self._module(config, prompt), None, None)

    def params(self, model: EncoderDecoderModel) -> dict[str, Any]:
        """Returns the weights in the model's layout, with the case's prompt where it has one."""
        shapes = {path: x for path, x in model.param_shapes.items() if path != PROMPT_PATH}
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shardings = dict.fromkeys(shapes, sharding)
        flat = load_params(self.source, shapes, shardings, model_shapes=shapes)
        if model.prompt is not None:
            flat[PROMPT_PATH] = jnp.asarray(self.arrays["prompt"] * np.float32(self.prompt_scale))
        return tree.unflatten(flat)

    @property
    def prompt_scale(self) -> float:
        """What the case's prompt is times, to stand in front of embeddings as the model's encoder takes them."""
        return self.config.emb_dim**0.5 if peft.is_scaled(self.source.config) else 1.0


@functools.cache
def _compiled(model: EncoderDecoderModel) -> Any:
    """`(prompt, params, batch, is_target) -> ((loss, (logits, encoder output)), gradient by the prompt)`."""
    module = model.module

    def loss_fn(prompt, params, batch, is_target):
        flat = tree.flatten(params)
        params = tree.unflatten({**flat, **({PROMPT_PATH: prompt} if PROMPT_PATH in flat else {})})
        tokens = batch["encoder_input_tokens"]
        encoded = module.apply(
            {"params": params}, tokens, enable_dropout=False, method=module.encode
        )
        logits = model.apply(params, batch)
        losses, _ = token_cross_entropy(logits, batch["decoder_target_tokens"])
        return jnp.sum(losses * is_target) / jnp.sum(is_target), (logits, encoded)

    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def _computed(case: Case, *, has_prompt: bool, **fields: Any) -> dict[str, np.ndarray]:
    """Loss, logits, encoder output and, with a prompt, its gradient in the reference's space."""
    model = case.model(has_prompt=has_prompt, **fields)
    weights = jnp.asarray(case.is_target, jnp.float32)
    params = case.params(model)
    prompt = tree.flatten(params).get(PROMPT_PATH, jnp.zeros(()))
    (loss, (logits, encoded)), gradient = _compiled(model)(prompt, params, case.batch, weights)
    found = {"loss": loss, "logits": logits, "encoder_output": encoded}
    if has_prompt:
        found["grad"] = gradient * case.prompt_scale
    return {name: np.asarray(x, np.float32) for name, x in found.items()}


def _rows(folder: pathlib.Path, name: str) -> Iterator[Row | NotChecked]:
    """The rows of one case."""
    case = Case(folder)
    known = {"input_ids", "attention_mask", "labels", "decoder_input_ids", "prompt"}
    for has_prompt in (False, True) if "prompt" in case.arrays else (False,):
        prefix = "prompt_" if has_prompt else ""
        for layout in ("unscanned", "scanned"):
            ours = _computed(case, has_prompt=has_prompt, scan_layers=layout == "scanned")
            yield from _forward_rows(case, ours, prefix, f"{name}/{layout}", known)
        if f"bf16_{prefix}loss" in case.arrays:
            ours = _computed(case, has_prompt=has_prompt, dtype="bfloat16")
            yield from _bfloat16_rows(case, ours, prefix, f"{name}/bfloat16", known)
        yield from _greedy_rows(case, has_prompt, name, known)
    yield from _other_module(case, folder, name)
    for array in sorted(set(case.arrays) - known):
        reason = "no comparison knows it"
        if array.startswith(_NOT_OURS):
            reason = "transformers 5.23 as it is, whose window is one position wider on each side"
        elif array.startswith("bf16_") and "greedy" in array:
            reason = "another rounding decodes other tokens; bfloat16 is compared by its logits"
        yield NotChecked(f"{name}: {array}", reason)


def _other_module(case: Case, folder: pathlib.Path, name: str) -> Iterator[Row]:
    """What DeepMind's own module made of the same weights, without a prompt."""
    if not (file := folder / "gemma_flax.npz").is_file():
        return
    ours = _computed(case, has_prompt=False)
    with np.load(file) as theirs:
        for quantity in ("logits", "encoder_output"):
            value = _difference(case, quantity, ours[quantity], theirs[quantity])
            yield Row(f"{name}/DeepMind's module/{quantity}", value, LOGITS)


def _difference(case: Case, quantity: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """The difference of one quantity at real positions, in the unit of its tolerance."""
    if quantity == "logits":
        return largest(ours[case.is_target], theirs[case.is_target])
    if quantity == "encoder_output":
        length = ours.shape[1] - case.is_input.shape[1]
        where = np.pad(case.is_input, ((0, 0), (length, 0)), constant_values=True)
        return largest(ours[where], theirs[where])
    return of_maximum(ours, theirs) if quantity == "grad" else largest(ours, theirs)


_TOLERANCES = {
    "logits": (LOGITS, "absolute"),
    "encoder_output": (LOGITS, "absolute"),
    "loss": (LOSS, "absolute"),
    "grad": (GRADIENT, "relative"),
}


def _forward_rows(
    case: Case, ours: dict[str, np.ndarray], prefix: str, name: str, known: set[str]
) -> Iterator[Row]:
    """float32, at real positions."""
    for quantity, array in ours.items():
        if (key := prefix + quantity) in case.arrays:
            known.add(key)
            tolerance, unit = _TOLERANCES[quantity]
            value = _difference(case, quantity, array, case.arrays[key])
            yield Row(f"{name}/{key}", value, tolerance, unit)


def _bfloat16_rows(
    case: Case, ours: dict[str, np.ndarray], prefix: str, name: str, known: set[str]
) -> Iterator[Row]:
    """bfloat16 activations: no further from the reference's than twice what that is from its own float32."""
    theirs = case.arrays
    if f"bf16_{prefix}logits" in theirs:
        error = theirs[f"bf16_{prefix}logits"] - theirs[f"{prefix}logits"]
    else:
        error = theirs["bf16_logits"] - theirs["logits"]
    # The loss is one number, whose error may vanish by chance: see `golden_forward.bfloat16_tolerances`.
    error = error[case.is_target]
    spread = 3.0 * np.sqrt(2.0 * np.mean(np.square(error)) / case.is_target.sum())
    for quantity, array in ours.items():
        key = f"bf16_{prefix}{quantity}"
        if key not in theirs:
            continue
        known.add(key)
        own = _difference(case, quantity, theirs[key], theirs[prefix + quantity])
        allowed = BF16_FACTOR * (max(own, spread) if quantity == "loss" else own)
        value = _difference(case, quantity, array, theirs[key])
        unit = _TOLERANCES[quantity][1]
        note = f"reference: {own:.2g} from its own float32"
        yield Row(f"{name}/{key}", value, allowed, unit, note)


def _greedy_rows(case: Case, has_prompt: bool, name: str, known: set[str]) -> Iterator[Row]:
    """Greedy tokens with a cache in both layouts, and what the whole forward pass would have chosen."""
    prefix = "prompt_" if has_prompt else ""
    margin = case.arrays.get(f"{prefix}greedy_margin")
    if margin is None:
        return
    known.add(f"{prefix}greedy_margin")
    # Of each row, what comes before a step at which the two best are too near to each other.
    is_clear = np.cumprod(margin >= MARGIN, axis=1).astype(bool)
    found = {
        # The first two begin with the start token.
        f"{prefix}greedy": 1,
        f"{prefix}greedy_generate": 1,
        f"{prefix}greedy_no_eos_stop": 0,
    }
    for key, num_starts in found.items():
        if key not in case.arrays:
            continue
        known.add(key)
        stops = key.endswith("generate")
        theirs = case.arrays[key][:, num_starts:]
        length = theirs.shape[1]
        compared = {}
        for scan_layers in (False, True):
            layout = "scanned" if scan_layers else "unscanned"
            fields = {"has_prompt": has_prompt, "stops": stops, "scan_layers": scan_layers}
            compared[layout] = _decoded(case, length, **fields)
        if not stops:
            compared["without cache"] = _without_cache(case, theirs, has_prompt=has_prompt)
        for layout, ours in compared.items():
            wrong = int(np.sum((ours != theirs) & is_clear[:, :length]))
            note = f"{int(is_clear[:, :length].sum())} of {theirs.size} tokens"
            yield Row(f"{name}/{layout}/{key}", wrong, 0, "count", note)


def _decoded(
    case: Case, length: int, *, has_prompt: bool, stops: bool, scan_layers: bool
) -> np.ndarray:
    """Greedy tokens [B, length]; unless it stops, an end is a token as any other."""
    ids = case.config.ids if stops else dataclasses.replace(case.config.ids, eos=-1)
    model = case.model(has_prompt=has_prompt, scan_layers=scan_layers, special_ids=ids)
    batch = {"encoder_input_tokens": case.batch["encoder_input_tokens"]}
    predict = jax.jit(lambda params, batch: model.predict(params, batch, length)[0])
    return np.asarray(predict(case.params(model), batch))


def _without_cache(case: Case, tokens: np.ndarray, *, has_prompt: bool) -> np.ndarray:
    """The best token at each position behind those of the reference before it."""
    model = case.model(has_prompt=has_prompt)
    start = np.full((len(tokens), 1), case.config.ids.start)
    inputs = np.concatenate([start, tokens[:, :-1]], axis=1)
    # Past what makes the model's start of a pipeline's 0: a reference may have decoded a 0. No target is padding.
    call = jax.jit(
        lambda params: model.module.apply(
            {"params": params},
            case.batch["encoder_input_tokens"],
            jnp.asarray(inputs, jnp.int32),
            jnp.full(tokens.shape, case.config.ids.pad + 1, jnp.int32),
            enable_dropout=False,
        )
    )
    return np.asarray(call(case.params(model))).argmax(axis=-1)
