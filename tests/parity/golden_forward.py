"""Logits, losses, gradients and scores of the model against the reference."""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.training.losses import (
    LossConfig,
    loss_and_metric_sums,
    token_cross_entropy,
    weights_and_normalizer,
)
from prompt_tuning.training.metrics import summarize
from tests import both_layouts
from tests.parity.golden_folder import Golden
from tests.parity.rows import NotChecked, Row, largest, of_maximum, score_tolerance, worst

LOGITS = 2e-5
LOSS = 1e-6
GRADIENT = 1e-5
# Two bfloat16 implementations may each be as far from float32 as the reference's is.
BF16_FACTOR = 2.0


def forward(golden: Golden) -> Iterator[Row | NotChecked]:
    """float32, with the prompt (both layouts of the layers) and without."""
    theirs = golden.arrays("forward.npz")
    known = re.compile(
        r"(logits|loss|z_loss|weight_sum|encoder_output|grad_prompt)(_noprompt_\w+)?"
    )
    suffixes = {""}
    for name in theirs:
        match = known.fullmatch(name)
        if match is None:
            yield NotChecked(f"forward.npz: {name}", "unknown quantity")
        else:
            suffixes.add(match[2] or "")
    for suffix in sorted(suffixes):
        for scan_layers in (False, True) if not suffix else (False,):
            prefix = "forward" + (suffix or "") + ("_scanned" if scan_layers else "")
            model = golden.model(with_prompt=not suffix, scan_layers=scan_layers)
            yield from _forward_rows(golden, model, theirs, prefix, suffix)


def _forward_rows(
    golden: Golden, model: EncoderDecoderModel, theirs: dict, prefix: str, suffix: str
) -> Iterator[Row]:
    """The rows of one model."""
    real = golden.is_target
    ours, gradient = loss_and_gradient(golden, model)
    if f"logits{suffix}" in theirs:
        expected = theirs[f"logits{suffix}"]
        yield Row(f"{prefix}/logits", largest(ours["logits"][real], expected[real]), LOGITS)
    for name in ("loss", "z_loss", "weight_sum"):
        if name + suffix in theirs:
            value = of_maximum(ours[name], theirs[name + suffix])
            yield Row(f"{prefix}/{name}", value, LOSS, "relative")
    if f"encoder_output{suffix}" in theirs:
        length = model.prompt.length if model.prompt else 0
        where = golden.is_encoded(length)
        encoded = encode(golden, model)
        value = largest(encoded[where], theirs[f"encoder_output{suffix}"][where])
        yield Row(f"{prefix}/encoder_output", value, LOGITS)
    if f"grad_prompt{suffix}" in theirs:
        value = of_maximum(gradient[PROMPT_PATH], theirs[f"grad_prompt{suffix}"])
        yield Row(f"{prefix}/gradient_prompt", value, GRADIENT, "relative")


@functools.cache
def compiled_loss(model: EncoderDecoderModel) -> Any:
    """Returns `(params, batch) -> ((loss, what it is made of), gradient)`, compiled once for all folders."""

    def loss_fn(params, batch):
        weights, normalizer = weights_and_normalizer(batch, model.loss_config)
        logits = model.apply(params, batch)
        loss, sums = loss_and_metric_sums(logits, batch, weights, normalizer, model.loss_config)
        return loss, {"logits": logits, "loss": loss, "weight_sum": jnp.sum(weights), "sums": sums}

    return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


@functools.cache
def loss_and_gradient(
    golden: Golden, model: EncoderDecoderModel
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the loss and what it is made of, and its gradient by every parameter, by path."""
    (_, aux), gradient = compiled_loss(model)(golden.params_for(model), golden.batch)
    ours = jax.tree.map(np.asarray, aux)
    ours["z_loss"] = ours["sums"]["z_loss"]
    return ours, {path: np.asarray(x) for path, x in tree.flatten(gradient).items()}


@functools.cache
def encode(golden: Golden, model: EncoderDecoderModel) -> np.ndarray:
    """Returns the encoder's output [B, S, H]."""
    call = compiled_encode(model)
    return np.asarray(call(golden.params_for(model), golden.batch["encoder_input_tokens"]))


@functools.cache
def compiled_encode(model: EncoderDecoderModel) -> Any:
    """Returns `(params, tokens) -> encoder's output`, compiled once for all folders."""
    module = model.module
    return jax.jit(
        lambda params, tokens: module.apply(
            {"params": params}, tokens, enable_dropout=False, method=module.encode
        )
    )


def forward_metrics(golden: Golden) -> Iterator[Row | NotChecked]:
    """The metrics that T5X logs of the batch."""
    ours, _ = loss_and_gradient(golden, golden.model())
    tags = summarize({name: float(x) for name, x in ours["sums"].items()}, 1)
    for name, value in golden.json("forward_metrics.json").items():
        if name in tags:
            yield Row(f"forward/metrics/{name}", of_maximum(tags[name], value), LOSS, "relative")
        else:
            yield NotChecked(f"forward_metrics.json: {name}", "this project does not log it")


def gradients(golden: Golden) -> Iterator[Row | NotChecked]:
    """The gradient by every weight and by the prompt; each array is measured by its own maximum."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, array in golden.arrays("grads.npz").items():
        group, path = name.split("/", 1)
        groups.setdefault(group, {})[path] = array
    for group, theirs in groups.items():
        _, ours = loss_and_gradient(golden, golden.model(with_prompt=PROMPT_PATH in theirs))
        note = f"{len(theirs)} arrays"
        value = worst(of_maximum, ours, theirs)
        yield Row(f"gradient/{group}", value, GRADIENT, "relative", note)
    scanned = golden.model(scan_layers=True)
    prompt_group = next((g for g in groups if PROMPT_PATH in groups[g]), None)
    if prompt_group is not None:
        theirs = groups[prompt_group]
        _, stacked = loss_and_gradient(golden, scanned)
        ours = both_layouts.to_unscanned(
            {p: x for p, x in stacked.items() if "relpos_bias" not in p}
        )
        theirs = {p: x for p, x in theirs.items() if "relpos_bias" not in p}
        note = f"{len(theirs)} arrays; every layer has a table of its own, so tables are left out"
        value = worst(of_maximum, ours, theirs)
        yield Row("gradient/scanned", value, GRADIENT, "relative", note)


def bfloat16(golden: Golden) -> Iterator[Row | NotChecked]:
    """bfloat16 activations over float32 weights; see `bfloat16_tolerances`."""
    theirs, exact = golden.arrays("forward_bf16.npz"), golden.arrays("forward.npz")
    real = golden.is_target
    model = golden.model(dtype="bfloat16")
    tolerances = bfloat16_tolerances(theirs, exact, real)
    ours, gradient = loss_and_gradient(golden, model)
    with jax.disable_jit():
        eager = np.asarray(model.apply(golden.params_for(model), golden.batch))
    pairs = {
        "logits": (largest, ours["logits"][real], theirs["logits"][real]),
        "logits_jit_or_not": (largest, ours["logits"][real], eager[real]),
        "loss": (of_maximum, ours["loss"], theirs["loss"]),
    }
    if "grad_prompt" in theirs:
        pairs["gradient_prompt"] = (of_maximum, gradient[PROMPT_PATH], theirs["grad_prompt"])
    for name, (measure, a, b) in pairs.items():
        key = "logits" if name == "logits_jit_or_not" else name
        unit = "absolute" if measure is largest else "relative"
        note = f"reference: {tolerances[key] / BF16_FACTOR:.2g} from its own float32"
        yield Row(f"bfloat16/{name}", measure(a, b), tolerances[key], unit, note)


def bfloat16_tolerances(
    theirs: dict[str, np.ndarray], exact: dict[str, np.ndarray], real: np.ndarray
) -> dict[str, float]:
    """Returns how far two bfloat16 implementations may be apart, from how far the reference's is from float32.

    Each is allowed the rounding error of the reference, so their difference twice that. The loss is one number, whose
    error may vanish by chance: it is allowed at least what independent errors of the logits, of their measured size,
    add up to over the target tokens (three standard deviations of one implementation).
    """
    error = theirs["logits"][real] - exact["logits"][real]
    spread = 3.0 * np.sqrt(2.0 * real.sum() * np.mean(np.square(error)))
    loss = max(abs(float(theirs["loss"] - exact["loss"])), float(spread))
    tolerances = {"logits": largest(theirs["logits"][real], exact["logits"][real])}
    tolerances["loss"] = loss / abs(float(exact["loss"]))
    if "grad_prompt" in theirs:
        tolerances["gradient_prompt"] = of_maximum(theirs["grad_prompt"], exact["grad_prompt"])
    return {name: BF16_FACTOR * value for name, value in tolerances.items()}


_CASE = re.compile(r"ls(?P<smoothing>[\d.e-]+)_z(?P<z>[\d.e-]+)_lnf(?P<factor>\w+(\.\d+)?)")


def losses(golden: Golden) -> Iterator[Row | NotChecked]:
    """Loss, z-loss, weights and gradient under every label smoothing, z-loss and normalising factor."""
    theirs = golden.arrays("losses.npz")
    batch = {
        "decoder_target_tokens": jnp.asarray(theirs["targets"]),
        "decoder_loss_weights": jnp.asarray(theirs["weights"]),
    }
    measured: dict[str, list[float]] = {}
    for name in (n.split("/")[0] for n in theirs if n.endswith("/loss_z_weightsum")):
        match = _CASE.fullmatch(name)
        if match is None:
            yield NotChecked(f"losses.npz: {name}", "unknown case")
            continue
        config = LossConfig(float(match["z"]), float(match["smoothing"]), _factor(match["factor"]))

        def loss_fn(logits, config=config):
            weights, normalizer = weights_and_normalizer(batch, config)
            loss, sums = loss_and_metric_sums(logits, batch, weights, normalizer, config)
            return loss, (sums["z_loss"], jnp.sum(weights))

        (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
            jnp.asarray(theirs["logits"])
        )
        expected = theirs[f"{name}/loss_z_weightsum"]
        for quantity, value, reference in zip(
            ("loss", "z_loss", "weight_sum"), (loss, *aux), expected, strict=True
        ):
            measured.setdefault(quantity, []).append(of_maximum(value, reference))
        value = of_maximum(gradient, theirs[f"{name}/grad_logits"])
        measured.setdefault("gradient", []).append(value)
    for quantity, values in measured.items():
        note = f"{len(values)} cases"
        yield Row(f"losses/{quantity}", float(np.max(values)), LOSS, "relative", note)


def _factor(text: str) -> float | str | None:
    """A normalising factor as the name of a case spells it."""
    try:
        return float(text)
    except ValueError:
        return None if text == "None" else text


def scores(golden: Golden) -> Iterator[Row | NotChecked]:
    """Log-likelihoods of the targets, per example and per token."""
    theirs = golden.arrays("score.npz")
    for name, expected in theirs.items():
        quantity, _, suffix = name.partition("_noprompt")
        model = golden.model(with_prompt=not suffix)
        row = f"score/{name}"
        if quantity == "sequence_scores":
            ours = jax.jit(model.score)(golden.params_for(model), golden.batch)
            yield Row(row, largest(ours, expected), score_tolerance(expected))
        elif quantity == "token_scores":
            ours, _ = loss_and_gradient(golden, model)
            targets = golden.batch["decoder_target_tokens"]
            tokens = -np.asarray(token_cross_entropy(jnp.asarray(ours["logits"]), targets)[0])
            real = golden.is_target
            value = largest(tokens[real], expected[real])
            yield Row(row, value, score_tolerance(expected[real]))
        else:
            yield NotChecked(f"score.npz: {name}", "unknown quantity")
