"""Benchmarks of the training step, as ratios of two variants that were measured in turn in one run.

Run `make bench`, or `python -m prompt_tuning.launch.benchmarks.step --json=FILE` to append the result to a file and
compare it with the last one there. Absolute milliseconds depend on the machine and on what else it does; ratios
hardly do.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.training_step import Step, Workload
from prompt_tuning.models.config import T5Config
from prompt_tuning.params.names import PROMPT_REGEX

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
_WORK = Workload(batch_size=16, inputs=128, frozen_dtype="float32")
_ROUNDS, _STEPS_A_ROUND = 7, 3


@dataclasses.dataclass(frozen=True)
class Variant:
    """One way to take the step."""

    name: str
    config: T5Config = _CONFIG
    trainable_regex: Sequence[str] = PROMPT_REGEX
    num_microbatches: int = 1


# (what is asked, variant, baseline): the ratio is variant / baseline.
COMPARISONS = (
    (
        "prompt tuning / model tuning",
        Variant("prompt tuning"),
        Variant("model tuning", trainable_regex=(".*",)),
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
    steps = [
        Step(
            v.config,
            dataclasses.replace(_WORK, num_microbatches=v.num_microbatches),
            v.trainable_regex,
        )
        for v in variants
    ]
    for step in steps:
        step.time(_STEPS_A_ROUND)
    rounds = [[step.time(_STEPS_A_ROUND) for step in steps] for _ in range(_ROUNDS)]
    seconds = list(zip(*rounds, strict=True))
    medians = [float(np.median(times)) for times in seconds]
    one, other = steps
    return {
        "question": question,
        "step_time_ratio": medians[0] / medians[1],
        "compile_time_ratio": one.compile_seconds / other.compile_seconds,
        "temp_bytes_ratio": one.temp_bytes / other.temp_bytes,
        "step_ms": {v.name: 1000 * s for v, s in zip(variants, medians, strict=True)},
        "spread": {
            v.name: (max(t) - min(t)) / float(np.median(t))
            for v, t in zip(variants, seconds, strict=True)
        },
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
    measuring.append(path, rows)


if __name__ == "__main__":
    main()
