"""What it costs to check digests while weights are loaded: checked and unchecked loads alternate in one process.

Run `python -m prompt_tuning.launch.benchmarks.checking`; it writes random converted weights to a temporary folder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.checkpoints import load
from prompt_tuning.checkpoints.formats import weights

_SHAPE = (2048, 2816)


def measure(folder: str, *, dtype: str, arrays: int, rounds: int) -> dict[str, float]:
    """Returns the medians of checked and unchecked loads and their ratios.

    Args:
      folder: An empty folder.
      dtype: In what the weights are stored and loaded.
      arrays: Arrays of 2,048 x 2,816.
      rounds: Loads of each kind.

    Returns:
      `mebibytes`; `checked` and `unchecked` in processor and wall seconds; how many times as long a checked load takes.
    """
    writer, rng, shapes = weights.WeightsWriter(folder), np.random.default_rng(0), {}
    for number in range(arrays):
        array = rng.standard_normal(_SHAPE, np.float32).astype(jnp.dtype(dtype))
        name = f"encoder/layers_{number}/mlp/wi_0/kernel"
        writer.write(name, array)
        shapes[name] = jax.ShapeDtypeStruct(array.shape, array.dtype)
    origin = {
        "kind": "t5x",
        "path": "",
        "step": 0,
        "frozen_digest": None,
        "trainable_paths": [],
        "metadata": {},
    }
    writer.finish(source=origin, digest="")
    shardings = dict.fromkeys(shapes, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for _ in range(rounds + 1):
        for checks in seconds:
            source = weights.WeightsSource(folder)
            if not checks:
                source._digests = {}
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(load.load_params(source, shapes, shardings, dtype=dtype))
            took = time.process_time() - processor, time.perf_counter() - wall
            seconds[checks].append(took)
    # The first of each kind fills the system's memory of the files.
    checked, unchecked = (np.median(seconds[kind][1:], axis=0) for kind in (True, False))
    return {
        "mebibytes": arrays * np.prod(_SHAPE) * jnp.dtype(dtype).itemsize / 2**20,
        "checked processor seconds": checked[0],
        "unchecked processor seconds": unchecked[0],
        "processor ratio": checked[0] / unchecked[0],
        "checked wall seconds": checked[1],
        "unchecked wall seconds": unchecked[1],
        "wall ratio": checked[1] / unchecked[1],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Prints one JSON object a dtype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arrays", type=int, default=24, help="arrays of 2,048 x 2,816")
    parser.add_argument("--rounds", type=int, default=9, help="loads of each kind")
    flags = parser.parse_args(argv)
    for dtype in ("float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(folder, dtype=dtype, arrays=flags.arrays, rounds=flags.rounds)
        print(json.dumps({"dtype": dtype, **{k: round(float(v), 3) for k, v in found.items()}}))


if __name__ == "__main__":
    main()
