"""Step time, peak memory and model-FLOP utilisation of prompt tuning on one GPU, with random weights and batches.

Run `python -m prompt_tuning.launch.benchmarks.gpu_bench --json=FILE` after `pip install -e '.[cuda]'`; it reads no
data and needs neither TensorFlow nor SeqIO. It prints one JSON object a size: Base, Large and XL unless `--sizes`
names others, of which "tiny" runs anywhere.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.config import DTYPES
from prompt_tuning.launch.benchmarks.load_memory import config_of
from prompt_tuning.models.config import REMAT_POLICIES, T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import int8
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.step import TrainStep, make_train_step

_PROMPT_ONLY = (".*/prompt/.*",)
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


@dataclasses.dataclass(frozen=True)
class Workload:
    """What one step works on.

    Attributes:
      batch_size: Examples.
      inputs: Tokens of an input (L).
      targets: Tokens of a target (T).
      prompt_length: Rows of the prompt (P).
      num_microbatches: Slices of the batch.
      remat_policy: See `T5Config`.
      frozen_dtype: In what the frozen weights are held; activations are bfloat16 in any case.
    """

    batch_size: int = 32
    inputs: int = 512
    targets: int = 8
    prompt_length: int = 100
    num_microbatches: int = 1
    remat_policy: str = "none"
    frozen_dtype: str = "bfloat16"


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
    size: str, work: Workload, *, num_steps: int, peak_tflops: float | None
) -> dict[str, Any]:
    """Returns a row of figures.

    Args:
      size: A shipped size, or "tiny".
      work: What a step works on.
      num_steps: Steps timed one by one, after two that are not.
      peak_tflops: Of the device; None for what `PEAK_TFLOPS` says, if it knows the device.
    """
    device = jax.devices()[0]
    config = dataclasses.replace(
        config_of(size),
        dtype="bfloat16",
        param_dtype="bfloat16",
        scan_layers=True,
        remat_policy=work.remat_policy,
    )
    model = EncoderDecoderModel(T5(config, PromptConfig(work.prompt_length)), None, None)
    step, state, frozen = _prepare(model, work)
    batch = _random_batch(config, work)
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, frozen, batch).compile()
    compile_seconds = time.perf_counter() - began
    seconds = []
    for _ in range(2 + num_steps):
        began = time.perf_counter()
        state, metrics = compiled(state, frozen, batch)
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - began)
    median = float(np.median(seconds[2:]))
    rate = model_flops(config, work) / median / 1e12
    peak = peak_tflops or known_peak(device.device_kind)
    memory, analysis = device.memory_stats() or {}, compiled.memory_analysis()
    assert analysis is not None, "CPUs and GPUs have one"
    return {
        "size": size,
        "device": device.device_kind,
        "jax": jax.__version__,
        **dataclasses.asdict(work),
        "step_ms": 1000 * median,
        "step_ms_range": [1000 * min(seconds[2:]), 1000 * max(seconds[2:])],
        "examples_per_second": work.batch_size / median,
        "model_tflop_per_step": model_flops(config, work) / 1e12,
        "model_tflops": rate,
        "peak_tflops": peak,
        "model_flop_utilisation": rate / peak if peak else None,
        "weight_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(frozen)),
        "temp_bytes": analysis.temp_size_in_bytes,
        "peak_bytes": memory.get("peak_bytes_in_use"),
        "device_bytes": memory.get("bytes_limit"),
        "compile_seconds": compile_seconds,
    }


def known_peak(device_kind: str) -> float | None:
    """Returns the peak rate of a device in 10^12 FLOP a second; None if `PEAK_TFLOPS` does not have it."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_kind), None)


def _prepare(model: EncoderDecoderModel, work: Workload) -> tuple[TrainStep, TrainState, Any]:
    """The step, its state and the frozen weights."""
    tx = Adafactor(multiply_by_parameter_scale=False).make(lambda step: 0.3)
    trainable, frozen = tree.split(jax.jit(model.init)(jax.random.key(0)), _PROMPT_ONLY)
    frozen = tree.unflatten(int8.hold(tree.flatten(frozen), work.frozen_dtype))
    key = jax.random.key_data(jax.random.key(1))
    state = TrainState(jnp.int32(0), trainable, tx.init(trainable), key)
    step = make_train_step(
        model.apply,
        tx,
        learning_rate_fn=lambda step: 0.3,
        loss_config=model.loss_config,
        num_microbatches=work.num_microbatches,
    )
    return step, state, frozen


def _random_batch(config: T5Config, work: Workload) -> dict[str, jax.Array]:
    """Full rows of random ids."""
    rng = np.random.default_rng(0)

    def ids(length: int) -> jax.Array:
        return jnp.asarray(rng.integers(3, config.vocab_size, (work.batch_size, length)), jnp.int32)

    return {
        "encoder_input_tokens": ids(work.inputs),
        "decoder_input_tokens": ids(work.targets),
        "decoder_target_tokens": ids(work.targets),
        "decoder_loss_weights": jnp.ones((work.batch_size, work.targets), jnp.int32),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one JSON object a size, smallest first: peak memory is that of the process so far."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="base,large,xl", help="separated by commas, ascending")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--num_microbatches", type=int, default=1)
    parser.add_argument("--remat_policy", choices=REMAT_POLICIES, default="none")
    parser.add_argument("--frozen_dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--steps", type=int, default=20, help="steps timed")
    parser.add_argument("--peak_tflops", type=float, help="of a device that is not in the list")
    parser.add_argument("--json", type=pathlib.Path, help="file to append the rows to")
    flags = parser.parse_args(argv)
    work = Workload(
        batch_size=flags.batch_size,
        inputs=flags.inputs,
        num_microbatches=flags.num_microbatches,
        remat_policy=flags.remat_policy,
        frozen_dtype=flags.frozen_dtype,
    )
    for size in flags.sizes.split(","):
        try:
            row = measure(size, work, num_steps=flags.steps, peak_tflops=flags.peak_tflops)
        except jax.errors.JaxRuntimeError as e:
            if "RESOURCE_EXHAUSTED" not in str(e):
                raise
            row = {"size": size, **dataclasses.asdict(work), "error": str(e).splitlines()[0]}
        line = json.dumps(row)
        print(line, flush=True)
        if flags.json:
            with flags.json.open("a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
