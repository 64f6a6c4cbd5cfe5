"""Decoding and sampling against the reference."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.decoding.sampling import TemperatureSample
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from tests.parity.golden_folder import Golden
from tests.parity.golden_forward import LOGITS, loss_and_gradient
from tests.parity.rows import NotChecked, Row, differing, largest, score_tolerance

DISTRIBUTION = 1e-6
_BEAM = re.compile(r"(noprompt_\w+?_)?beam(\d+)(_alpha([\d.]+))?(_len(\d+))?")
_GREEDY = {
    "greedy_topk1": TemperatureSample(topk=1),
    "greedy_topk1_raw_logprob": TemperatureSample(topk=1, rescale_log_probs=False),
    "greedy_temperature0": TemperatureSample(temperature=0.0, rescale_log_probs=False),
    "greedy": Greedy(),
}


def decoding(golden: Golden) -> Iterator[Row | NotChecked]:
    """Every recorded run: all its sequences, and their scores."""
    theirs = golden.arrays("decode.npz")
    alpha = golden.meta.get("decode", {}).get("beam_alpha_default", 0.6)
    for name in dict.fromkeys(key.rpartition("/")[0] for key in theirs):
        decode_fn = _decode_fn(name, alpha)
        if decode_fn is None:
            yield NotChecked(f"decode.npz: {name}", "unknown way of decoding")
            continue
        tokens, scores = theirs[f"{name}/tokens"], theirs[f"{name}/scores"]
        model = golden.model(with_prompt="noprompt" not in name)
        ids, ours = decode(golden, model, decode_fn, tokens.shape[-1])
        note = f"{tokens.size} tokens"
        yield Row(f"decode/{name}/tokens", differing(ids, tokens), 0, "count", note)
        yield Row(f"decode/{name}/scores", largest(ours, scores), score_tolerance(scores))


def _decode_fn(name: str, default_alpha: float) -> Any:
    """The way of decoding that the name of a run spells; None if it spells none."""
    if match := _BEAM.fullmatch(name):
        alpha = float(match[4]) if match[4] else default_alpha
        return BeamSearch(num_decodes=int(match[2]), alpha=alpha)
    return _GREEDY.get(re.sub(r"^noprompt_\w+?_|_len\d+$", "", name))


@dataclasses.dataclass(frozen=True)
class AllDecodes:
    """A way of decoding whose only result is all sequences of `decode_fn`, so that `predict` returns them."""

    decode_fn: Any

    @property
    def num_decodes(self) -> int:
        """As many as `decode_fn` keeps."""
        return self.decode_fn.num_decodes

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, 1, K, T] and scores [B, 1, K]."""
        ids, scores = self.decode_fn(*args, **kwargs)
        return ids[:, None], scores[:, None]


@functools.cache
def decode(
    golden: Golden, model: EncoderDecoderModel, decode_fn: Any, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all sequences [B, K, T] and scores [B, K] that `model.predict` finds."""
    model = dataclasses.replace(model, decode_fn=AllDecodes(decode_fn))
    predict = jax.jit(lambda params, batch: model.predict(params, batch, length))
    ids, aux = predict(golden.params_for(model), golden.batch)
    return np.asarray(ids), np.asarray(aux["scores"])


def cache(golden: Golden) -> Iterator[Row | NotChecked]:
    """Decoding with a key/value cache against decoding without."""
    for with_prompt in (True, False):
        name = "cache/" + ("prompt" if with_prompt else "noprompt")
        model = golden.model(with_prompt=with_prompt)
        logits = cached_logits(golden, model)
        whole, _ = loss_and_gradient(golden, model)
        real = golden.is_target
        yield Row(f"{name}/logits", largest(logits[real], whole["logits"][real]), LOGITS)
        length = golden.batch["decoder_input_tokens"].shape[1]
        ids, scores = decode(golden, model, Greedy(), length)
        expected, expected_scores = greedy_without_cache(golden, model, length)
        yield Row(f"{name}/greedy_tokens", differing(ids[:, 0], expected), 0, "count")
        value = largest(scores[:, 0], expected_scores)
        yield Row(f"{name}/greedy_scores", value, score_tolerance(expected_scores))


def cached_logits(golden: Golden, model: EncoderDecoderModel) -> np.ndarray:
    """Returns the logits [B, T, V] of the batch's decoder inputs, fed one at a time through the cache."""
    module: T5 = model.module
    tokens = golden.batch["encoder_input_tokens"]
    inputs = golden.batch["decoder_input_tokens"]
    params = golden.params_for(model)

    @jax.jit
    def run(params):
        encoded = module.apply(
            {"params": params}, tokens, enable_dropout=False, method=module.encode
        )
        call = functools.partial(
            module.apply, mutable=["cache"], method=module.decode, enable_dropout=False, decode=True
        )
        shapes = jax.eval_shape(call, {"params": params}, encoded, tokens, inputs, inputs)[1]
        start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes["cache"])

        def step(cache, ids):
            variables = {"params": params, "cache": cache}
            ids = ids[:, None]
            logits, changed = call(
                variables, encoded, tokens, ids, ids, max_decode_length=inputs.shape[1]
            )
            return changed["cache"], logits[:, 0]

        return jnp.swapaxes(jax.lax.scan(step, start, inputs.T)[1], 0, 1)

    return np.asarray(run(params))


def greedy_without_cache(
    golden: Golden, model: EncoderDecoderModel, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids [B, T] and scores [B] of greedy decoding that runs the whole model again for each token."""
    rows = golden.batch["encoder_input_tokens"].shape[0]
    ids, scores = np.zeros((rows, length), np.int32), np.zeros(rows, np.float64)
    ended = np.zeros(rows, bool)
    apply, params = jax.jit(model.apply), golden.params_for(model)
    for position in range(length):
        batch = {
            "encoder_input_tokens": golden.batch["encoder_input_tokens"],
            "decoder_input_tokens": jnp.asarray(np.pad(ids[:, :-1], ((0, 0), (1, 0)))),
            # Any id but 0: the causal mask hides what is not decoded yet, and nothing else is padding.
            "decoder_target_tokens": jnp.ones((rows, length), jnp.int32),
        }
        logits = np.asarray(apply(params, batch))[:, position].astype(np.float64)
        best = logits.argmax(axis=-1)
        log_probs = logits.max(axis=-1) - np.logaddexp.reduce(logits, axis=-1)
        ids[:, position] = np.where(ended, 0, best)
        scores += np.where(ended, 0.0, log_probs)
        ended |= best == golden.meta.get("ids", {}).get("eos", 1)
    return ids, scores


SAMPLERS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"topk": 1},
    {"topk": 5},
    {"topk": 40, "temperature": 0.7},
    {"topp": 0.1},
    {"topp": 0.5},
    {"topp": 0.9, "temperature": 1.3},
    {"topp": 1.0},
)


def distributions(golden: Golden) -> Iterator[Row | NotChecked]:
    """The distributions that tokens are drawn from, over the reference's logits, against their plain definition."""
    logits = golden.arrays("forward.npz")["logits"][golden.is_target]
    for settings in SAMPLERS:
        filtered = TemperatureSample(**{"topk": 0, **settings}).filtered_logits(
            jnp.asarray(logits, jnp.float32)
        )
        ours = np.asarray(jax.nn.softmax(filtered, axis=-1))
        expected = np.stack([distribution(row, **settings) for row in logits])
        name = "_".join(f"{key}{value:g}" for key, value in settings.items())
        note = f"{len(logits)} positions"
        yield Row(
            f"sampling/{name}/probabilities", largest(ours, expected), DISTRIBUTION, note=note
        )
        yield Row(f"sampling/{name}/kept", differing(ours > 0, expected > 0), 0, "count")


def distribution(
    logits: np.ndarray, *, temperature: float = 1.0, topk: int = 0, topp: float = 0.0
) -> np.ndarray:
    """Returns the probabilities [V] of one position, in float64 and by sorting."""
    scaled = logits.astype(np.float64) / temperature
    order = np.argsort(-scaled, kind="stable")
    probs = np.exp(scaled - np.logaddexp.reduce(scaled))
    kept = len(order)
    if topk:
        kept = min(topk, kept)
    if topp:
        # The fewest most likely tokens whose probabilities reach the sum.
        kept = min(int(np.searchsorted(np.cumsum(probs[order]), topp)) + 1, kept)
    probs[order[kept:]] = 0.0
    return probs / probs.sum()
