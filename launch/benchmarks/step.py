"""Benchmarks of the training step, as ratios of two variants that were measured in turn in one run.

Run `make bench`, or `python -m prompt_tuning.launch.benchmarks.step --json=FILE` to append the result to a file and
compare it with the last one there. Absolute milliseconds depend on the machine and on what else it does; ratios
hardly do.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import make_train_step

_CONFIG = T5Config(
    vocab_size=8192,
    emb_dim=256,
    num_heads=4,
    num_encoder_layers=4,
    num_decoder_layers=4,
    head_dim=64,
    mlp_dim=512,
    dtype="float32",
)
_BATCH, _INPUTS, _TARGETS, _PROMPT = 16, 128, 8, 100
_PROMPT_ONLY, _ALL = (".*/prompt/.*",), (".*",)
_ROUNDS, _STEPS_A_ROUND = 7, 3


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to take the step."""

    name: str
    config: T5Config = _CONFIG
    trainable_regex: Sequence[str] = _PROMPT_ONLY
    num_microbatches: int = 1


# (what is asked, variant, baseline): the ratio is variant / baseline.
COMPARISONS = (
    (
        "prompt tuning / model tuning",
        Variant("prompt tuning"),
        Variant("model tuning", trainable_regex=_ALL),
    ),
    (
        "scanned / unscanned layers",
        Variant("scanned", config=dataclasses.replace(_CONFIG, scan_layers=True)),
        Variant("unscanned"),
    ),
    (
        "4 microbatches / 1",
        Variant("4 microbatches", num_microbatches=4),
        Variant("1 microbatch"),
    ),
)


def measure(comparison: tuple[str, Variant, Variant]) -> dict[str, Any]:
    """Returns the medians of both variants and their ratios; rounds alternate between the two."""
    question, *variants = comparison
    prepared = [_prepare(variant) for variant in variants]
    seconds: list[list[float]] = [[], []]
    for _ in range(_ROUNDS):
        for times, (run, _, _) in zip(seconds, prepared, strict=True):
            times.append(run())
    medians = [float(np.median(times)) for times in seconds]
    (_, compile_a, bytes_a), (_, compile_b, bytes_b) = prepared
    return {
        "question": question,
        "step_time_ratio": medians[0] / medians[1],
        "compile_time_ratio": compile_a / compile_b,
        "temp_bytes_ratio": bytes_a / bytes_b,
        "step_ms": {v.name: 1000 * s for v, s in zip(variants, medians, strict=True)},
        "spread": {
            v.name: (max(t) - min(t)) / float(np.median(t))
            for v, t in zip(variants, seconds, strict=True)
        },
    }


def _prepare(variant: Variant) -> tuple[Callable[[], float], float, int]:
    """A function that times one round in seconds a step, the compile seconds and the temporaries in bytes."""
    model = EncoderDecoderModel(T5(variant.config, PromptConfig(_PROMPT)), None, None)
    tx = Adafactor(multiply_by_parameter_scale=False).make(lambda step: 0.3)
    trainable, frozen = tree.split(model.init(jax.random.key(0)), variant.trainable_regex)
    key = jax.random.key_data(jax.random.key(1))
    state = TrainState(jnp.int32(0), trainable, tx.init(trainable), key)
    step = make_train_step(
        model.apply,
        tx,
        learning_rate_fn=lambda step: 0.3,
        loss_config=model.loss_config,
        num_microbatches=variant.num_microbatches,
    )
    batch = _random_batch()
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, batch).compile()
    compile_seconds = time.perf_counter() - began
    holder = [state]

    def run() -> float:
        began = time.perf_counter()
        for _ in range(_STEPS_A_ROUND):
            holder[0], metrics = compiled(holder[0], frozen, batch)
        jax.block_until_ready(metrics)
        return (time.perf_counter() - began) / _STEPS_A_ROUND

    run()
    return run, compile_seconds, compiled.memory_analysis().temp_size_in_bytes


def _random_batch() -> dict[str, jax.Array]:
    """Full rows of random ids."""
    rng = np.random.default_rng(0)
    ids = lambda width: jnp.asarray(rng.integers(3, 8000, (_BATCH, width)), jnp.int32)  # noqa: E731
    return {
        "encoder_input_tokens": ids(_INPUTS),
        "decoder_input_tokens": ids(_TARGETS),
        "decoder_target_tokens": ids(_TARGETS),
        "decoder_loss_weights": jnp.ones((_BATCH, _TARGETS), jnp.int32),
    }


def main() -> None:
    """Prints one line a comparison, beside the last run's where a file is given."""
    parser = argparse.ArgumentParser(description="Benchmarks of the training step, as ratios.")
    parser.add_argument(
        "--json", type=pathlib.Path, help="JSONL file to compare with and append to"
    )
    path = parser.parse_args().json
    last = json.loads(path.read_text().splitlines()[-1]) if path and path.exists() else []
    before = {row["question"]: row for row in last}
    rows = []
    print(
        f"{'variant / baseline':<30} {'step':>6} {'compile':>8} {'temps':>7}   ms a step (spread)"
    )
    for comparison in COMPARISONS:
        row = measure(comparison)
        rows.append(row)
        detail = ", ".join(
            f"{name} {ms:.1f} ({row['spread'][name]:.0%})" for name, ms in row["step_ms"].items()
        )
        old = before.get(row["question"])
        was = f"  [last: {old['step_time_ratio']:.2f}]" if old else ""
        print(
            f"{row['question']:<30} {row['step_time_ratio']:>6.2f} {row['compile_time_ratio']:>8.2f}"
            f" {row['temp_bytes_ratio']:>7.2f}   {detail}{was}",
            flush=True,
        )
    if path:
        with path.open("a") as file:
            file.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
