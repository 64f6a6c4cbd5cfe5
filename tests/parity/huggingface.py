"""T5 models of the transformers library, randomly initialised, against ours with the same weights.

Weights are drawn such that logits spread like those of a trained model (standard deviation about 2) and every part
moves them: what is compared within 1e-4 would differ by more than that if an activation, a scale or an axis were wrong.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
import transformers

from tests.parity.rows import Row
from tests.parity.saved_model import load

LOGITS_TOLERANCE = 1e-4
NUM_DECODED = 8
# Real tokens of each row, encoder and decoder.
LENGTHS = ((12, 7), (5, 3), (9, 1), (12, 5))
ENCODER_LENGTH, DECODER_LENGTH = 12, 7


@dataclasses.dataclass(frozen=True)
class Case:
    """One architecture.

    Attributes:
      family: "T5", "MT5" or "UMT5".
      fields: Fields of its Hugging Face configuration.
      untied: Whether the head is a matrix of its own, which transformers 5 leaves to who loads the weights.
    """

    family: str
    fields: dict[str, Any]
    untied: bool = False


def _fields(**changes: Any) -> dict[str, Any]:
    """A tiny configuration in which no two sizes agree and heads * head width is not the model's width."""
    sizes = {
        "vocab_size": 96,
        "d_model": 24,
        "d_kv": 8,
        "d_ff": 40,
        "num_layers": 2,
        "num_heads": 4,
    }
    return {**sizes, "decoder_start_token_id": 0, **changes}


GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CASES = {
    "t5_1_0": Case("T5", _fields(feed_forward_proj="relu")),
    "t5_1_0_untied": Case(
        "T5", _fields(feed_forward_proj="relu", tie_word_embeddings=False), untied=True
    ),
    "t5_1_1": Case("T5", _fields(**GATED), untied=True),
    # As transformers 5 makes it: the head is the embedding table, not rescaled.
    "t5_1_1_one_table": Case("T5", _fields(**GATED)),
    "mt5": Case("MT5", _fields(feed_forward_proj="gated-gelu", vocab_size=101), untied=True),
    "umt5": Case("UMT5", _fields(num_layers=3), untied=True),
    "umt5_tied": Case("UMT5", _fields(num_layers=3)),
    "byt5": Case("T5", _fields(**GATED, num_layers=3, num_decoder_layers=1, d_kv=3), untied=True),
    "ul2": Case("T5", _fields(**{**GATED, "feed_forward_proj": "gated-silu"}), untied=True),
    "other_buckets": Case(
        "T5",
        _fields(relative_attention_num_buckets=12, relative_attention_max_distance=9, d_kv=6),
    ),
}


def build(case: Case, seed: int = 0) -> Any:
    """Returns a PyTorch model of a case with random weights, ready to evaluate."""
    config = getattr(transformers, f"{case.family}Config")(**case.fields)
    model = getattr(transformers, f"{case.family}ForConditionalGeneration")(config).eval()
    if case.untied:
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
        if case.family == "UMT5":
            # transformers 5 sets this for every UMT5, and then rescales the output even with a head of its own.
            model.config.tie_word_embeddings = False
    rng = np.random.default_rng(seed)
    for name, value in model.named_parameters():
        drawn = rng.standard_normal(tuple(value.shape)).astype(np.float32)
        value.data = torch.from_numpy(_spread(name, drawn, case))
    return model


def _spread(name: str, drawn: np.ndarray, case: Case) -> np.ndarray:
    """Standard normal values scaled to what a trained model's parameter of this name has."""
    if name.endswith("layer_norm.weight"):
        return 1 + 0.2 * drawn
    if "relative_attention_bias" in name:
        return drawn
    if name == "shared.weight":
        return drawn * (2 if not case.untied else 1)
    fan_in = drawn.shape[1]
    if name.endswith(".q.weight"):
        # T5 does not divide by the square root of the head width; its queries are that much smaller.
        return drawn * np.float32(1.5 * (fan_in * case.fields["d_kv"]) ** -0.5)
    return drawn * np.float32((2 if name == "lm_head.weight" else 1.2) * fan_in**-0.5)


def batch(vocab_size: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Returns features of `LENGTHS`, padded with id 0."""
    rng = np.random.default_rng(seed)
    inputs = np.zeros((len(LENGTHS), ENCODER_LENGTH), np.int32)
    targets = np.zeros((len(LENGTHS), DECODER_LENGTH), np.int32)
    for row, (num_inputs, num_targets) in enumerate(LENGTHS):
        inputs[row, :num_inputs] = rng.integers(2, vocab_size, num_inputs)
        targets[row, :num_targets] = rng.integers(2, vocab_size, num_targets)
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    return {
        "encoder_input_tokens": inputs,
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": targets,
    }


def save(model: Any, folder: pathlib.Path, *, form: str = "safetensors") -> None:
    """Saves a model: "safetensors" in one file, "shards" of it, or "bin", PyTorch's own."""
    if form == "bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        return
    transformers.logging.disable_progress_bar()
    model.save_pretrained(folder, max_shard_size="12KB" if form == "shards" else "1GB")
    name = "model.safetensors.index.json" if form == "shards" else "model.safetensors"
    assert (folder / name).is_file()


def their_logits(model: Any, features: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the logits [B, T, V] of a PyTorch model."""
    inputs = torch.from_numpy(features["encoder_input_tokens"]).long()
    decoder_inputs = torch.from_numpy(features["decoder_input_tokens"]).long()
    with torch.no_grad():
        out = model(input_ids=inputs, attention_mask=inputs > 0, decoder_input_ids=decoder_inputs)
    return out.logits.numpy()


def their_tokens(model: Any, features: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the tokens [B, NUM_DECODED] that a PyTorch model generates greedily."""
    inputs = torch.from_numpy(features["encoder_input_tokens"]).long()
    ids = model.generate(
        input_ids=inputs,
        attention_mask=(inputs > 0).long(),
        do_sample=False,
        num_beams=1,
        max_new_tokens=NUM_DECODED,
    ).numpy()[:, 1:]
    return np.pad(ids, ((0, 0), (0, NUM_DECODED - ids.shape[1])))


def logits_difference(ours: np.ndarray, theirs: np.ndarray, features: dict) -> float:
    """Returns the largest difference of two models' logits at real positions."""
    real = features["decoder_target_tokens"] > 0
    assert ours.shape == theirs.shape and real.any()
    return float(np.abs(ours[real] - theirs[real]).max())


def compare(name: str, folder: pathlib.Path, *, scan_layers: bool) -> Iterator[Row]:
    """Yields the rows of one case and layout, through a model saved in `folder` (which is empty)."""
    case = CASES[name]
    theirs = build(case)
    save(theirs, folder)
    features = batch(case.fields["vocab_size"])
    model, params = load(folder, scan_layers=scan_layers)
    ours = np.asarray(jax.jit(model.apply)(params, features))
    layout = "scanned" if scan_layers else "unscanned"
    difference = logits_difference(ours, their_logits(theirs, features), features)
    yield Row(f"huggingface/logits/{name}/{layout}", difference, LOGITS_TOLERANCE)
    predict = jax.jit(lambda params, tokens: model.predict(params, tokens, NUM_DECODED)[0])
    tokens = np.asarray(predict(params, features))
    wrong = int((tokens != their_tokens(theirs, features)).sum())
    yield Row(f"huggingface/greedy tokens/{name}/{layout}", wrong, 0, "count")


def comparisons() -> Iterator[Row]:
    """Yields every comparison with the transformers library: each case in both layouts."""
    for name in CASES:
        for scan_layers in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                yield from compare(name, pathlib.Path(folder), scan_layers=scan_layers)
