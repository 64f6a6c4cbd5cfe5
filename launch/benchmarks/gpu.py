"""Step time, peak memory and model-FLOP utilisation of prompt tuning on one GPU, with random weights and batches.

Run `python -m prompt_tuning.launch.benchmarks.gpu --json=FILE` after `pip install -e '.[cuda]'`; it reads no
data and needs neither TensorFlow nor SeqIO. It prints one JSON object a size: Base, Large and XL unless `--sizes`
names others, of which "tiny" runs anywhere.
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prompt_tuning.checkpoints.config import DTYPES
from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.training_step import Step, Workload
from prompt_tuning.models.config import ATTENTIONS, REMAT_POLICIES, T5Config

# Dense bfloat16 products, as NVIDIA's data sheets state them; the first name that a device's contains counts.
# Unit: 10^12 FLOP a second.
PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
}


def model_flops(config: T5Config, work: Workload) -> float:
    """Returns the FLOP of the matrix products that one step of prompt tuning needs, without recomputation.

    Weights get no gradient, so that their products cost as much backward as forward; products of two activations
    (attention) cost twice as much backward.

    Args:
      config: Sizes of the model.
      work: Sizes of the batch.
    """
    long, short = work.prompt_length + work.inputs, work.targets
    width, joined = config.emb_dim, config.num_heads * config.head_dim
    mlp = (len(config.mlp_activations) + 1) * width * config.mlp_dim
    # Multiplications of one example, (with weights, of activations).
    encoder = (long * (4 * width * joined + mlp), 2 * long * long * joined)
    decoder = (
        short * (6 * width * joined + mlp) + long * 2 * width * joined,
        2 * short * (short + long) * joined,
    )
    stacks = ((config.num_encoder_layers, encoder), (config.num_decoder_layers, decoder))
    weights = sum(n * layer[0] for n, layer in stacks) + short * width * config.vocab_size
    activations = sum(n * layer[1] for n, layer in stacks)
    return 2.0 * work.batch_size * (2 * weights + 3 * activations)


def measure(
    size: str, work: Workload, *, attention: str, num_steps: int, peak_tflops: float | None
) -> dict[str, Any]:
    """Returns a row of figures.

    Args:
      size: A shipped size, or "tiny".
      work: What a step works on.
      attention: See `T5Config`.
      num_steps: Steps timed one by one, after two that are not.
      peak_tflops: Of the device; None for what `PEAK_TFLOPS` says, if it knows the device.
    """
    device = jax.devices()[0]
    config = dataclasses.replace(
        measuring.config_of(size),
        dtype="bfloat16",
        param_dtype="bfloat16",
        scan_layers=True,
        attention=attention,
    )
    step = Step(config, work)
    seconds = [step.time() for _ in range(2 + num_steps)][2:]
    median = float(np.median(seconds))
    rate = model_flops(config, work) / median / 1e12
    peak = peak_tflops or known_peak(device.device_kind)
    memory = device.memory_stats() or {}
    return {
        "size": size,
        "attention": attention,
        "device": device.device_kind,
        "jax": jax.__version__,
        **dataclasses.asdict(work),
        "step_ms": 1000 * median,
        "step_ms_range": [1000 * min(seconds), 1000 * max(seconds)],
        "examples_per_second": work.batch_size / median,
        "model_tflop_per_step": model_flops(config, work) / 1e12,
        "model_tflops": rate,
        "peak_tflops": peak,
        "model_flop_utilisation": rate / peak if peak else None,
        "weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(step.frozen)),
        "temp_bytes": step.temp_bytes,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "device_bytes": memory.get("bytes_limit"),
        "compile_seconds": step.compile_seconds,
    }


def known_peak(device_kind: str) -> float | None:
    """Returns the peak rate of a device in 10^12 FLOP a second; None if `PEAK_TFLOPS` does not have it."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_kind), None)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one JSON object a size, smallest first: peak memory is that of the process so far."""
    parser = measuring.parser(__doc__, sizes="base,large,xl")
    add, default = parser.add_argument, Workload()
    add("--batch_size", type=int, default=default.batch_size)
    add("--inputs", type=int, default=default.inputs)
    add("--num_microbatches", type=int, default=default.num_microbatches)
    add("--remat_policy", choices=REMAT_POLICIES, default=default.remat_policy)
    add("--frozen_dtype", choices=DTYPES, default=default.frozen_dtype)
    add("--attention", choices=ATTENTIONS, default="auto", help="how the encoder attends")
    add("--steps", type=int, default=20, help="steps timed")
    add("--peak_tflops", type=float, help="of a device that is not in the list")
    flags = parser.parse_args(argv)
    names = ("batch_size", "inputs", "num_microbatches", "remat_policy", "frozen_dtype")
    work = Workload(**{name: getattr(flags, name) for name in names})
    for size in flags.sizes.split(","):
        try:
            row = measure(
                size,
                work,
                attention=flags.attention,
                num_steps=flags.steps,
                peak_tflops=flags.peak_tflops,
            )
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            row = {"size": size, **dataclasses.asdict(work), "error": str(e).splitlines()[0]}
        print(json.dumps(row), flush=True)
        measuring.append(flags.json, row)


if __name__ == "__main__":
    main()
