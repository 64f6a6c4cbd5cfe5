"""Measures the peak memory of loading checkpoints: writes random ones of a model's size, loads each in a new process.

Run `python -m prompt_tuning.launch.benchmarks.load_memory --size=xl --dir=/path/to/scratch`. XL needs 23 GB of disk
while it converts and 12 GB otherwise, and as much memory as its weights take in float32, plus the bound's 512 MiB and
two tensors.
"""

import argparse
import dataclasses
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.measuring import MIB, peak_bytes
from prompt_tuning.models.config import T5Config

SIZES = ("tiny", "small", "base", "large", "xl")
# What loading may take besides the parameters and twice the largest tensor. Unit: bytes.
_ALLOWANCE = 512 * MIB
_COLUMNS = (
    "stored layout dtype disk devices baseline peak bound ok load_seconds digest_seconds".split()
)


def param_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Returns path -> shape of a model's parameters."""
    from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
    from prompt_tuning.models.t5 import T5

    model = EncoderDecoderModel(T5(config), None, None)
    return {path: tuple(leaf.shape) for path, leaf in model.param_shapes.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a row for each stored form, layout and dtype; exits 1 if one breaks the bound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="scratch folder")
    parser.add_argument("--json", type=pathlib.Path, help="also write the rows to this file")
    flags = parser.parse_args(argv)
    print("Memory in MiB")
    _print_row({name: name.replace("_seconds", ", s") for name in _COLUMNS})
    rows = []
    for row in measure_all(measuring.config_of(flags.size), flags.dir):
        _print_row(row)
        rows.append(row)
    if flags.json:
        flags.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(not all(row["ok"] for row in rows))


def measure_all(config: T5Config, folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yields a row for each of T5X's format, its converted form and Hugging Face's, in two layouts and three dtypes.

    Args:
      config: The model.
      folder: Scratch folder; what is written there is removed again, so that one checkpoint lies there at a time.
    """
    for kind in ("T5X", "converted", "Hugging Face"):
        path = folder / kind.replace(" ", "_").lower()
        _write(kind, path, config)
        disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        try:
            for layout in ("unscanned", "scanned"):
                for dtype in ("float32", "bfloat16", "int8"):
                    row = measure(path, config, layout=layout, dtype=dtype)
                    yield {"stored": kind, "layout": layout, "dtype": dtype, "disk": disk, **row}
        finally:
            shutil.rmtree(path)


def _write(kind: str, path: pathlib.Path, config: T5Config) -> None:
    """Writes a random checkpoint of one of the stored forms."""
    from prompt_tuning.launch.benchmarks import random_checkpoints

    shapes = param_shapes(config)
    if kind == "Hugging Face":
        random_checkpoints.write_huggingface(path, config, shapes)
    elif kind == "T5X":
        random_checkpoints.write_t5x(path, shapes)
    else:
        original = path.with_name("original")
        random_checkpoints.write_t5x(original, shapes)
        command = [sys.executable, "-m", "prompt_tuning", "convert", str(original), str(path)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        shutil.rmtree(original)


def measure(
    path: pathlib.Path, config: T5Config, *, layout: str, dtype: str, env: Mapping[str, str] = {}
) -> dict[str, Any]:
    """Returns what loading a checkpoint takes, in bytes and seconds; it happens in a new process.

    Args:
      path: The checkpoint.
      config: The model.
      layout: "scanned" or "unscanned".
      dtype: "float32", "bfloat16" or "int8".
      env: Variables set on top of this process's own.
    """
    settings = dataclasses.asdict(config) | {"scan_layers": layout == "scanned"}
    code = (
        "from prompt_tuning.launch.benchmarks import load_memory;"
        f" load_memory.load({str(path)!r}, {settings!r}, {dtype!r})"
    )
    # The bound is that of a CPU, whose devices hold their arrays in the host's memory.
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, check=True, stdout=subprocess.PIPE, text=True
    )
    row = json.loads(done.stdout.splitlines()[-1])
    row["bound"] = row["devices"] + 2 * row["largest"] + _ALLOWANCE
    row["ok"] = row["peak"] <= row["bound"]
    return row


def load(path: str, settings: Mapping[str, Any], dtype: str) -> None:
    """Loads a checkpoint as a run does, its digest included, and prints what it took as JSON."""
    import jax

    from prompt_tuning.checkpoints import digest
    from prompt_tuning.checkpoints.load import load_params
    from prompt_tuning.checkpoints.open import open_source
    from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
    from prompt_tuning.models.t5 import T5
    from prompt_tuning.partitioning import PjitPartitioner
    from prompt_tuning.run.arrays import held_shapes

    model = EncoderDecoderModel(T5(T5Config(**settings)), None, None)
    shapes = held_shapes(model, PjitPartitioner(), list(model.param_shapes), dtype)
    shardings = {path: leaf.sharding for path, leaf in shapes.items()}
    baseline = peak_bytes()
    began = time.perf_counter()
    source = open_source(path)
    params = load_params(source, shapes, shardings, dtype=dtype, model_shapes=model.param_shapes)
    jax.block_until_ready(params)
    loaded = time.perf_counter()
    peak_of_load = peak_bytes()
    fingerprint = digest.params_digest(params)
    stored = [math.prod(shape) * of.itemsize for shape, of in source.shapes().values()]
    # The stricter reading of "the largest tensor": stored, or in the model.
    largest = min(max(stored), max(leaf.nbytes for leaf in params.values()))
    row = {
        "devices": sum(s.data.nbytes for x in params.values() for s in x.addressable_shards),
        "largest": largest,
        "baseline": baseline,
        "peak": peak_bytes(),
        "peak_of_load": peak_of_load,
        "load_seconds": loaded - began,
        "digest_seconds": time.perf_counter() - loaded,
        "digest": fingerprint,
    }
    print(json.dumps(row))


def _print_row(row: Mapping[str, Any]) -> None:
    """Prints one row of the table: whole numbers are bytes, the others seconds."""
    cells = []
    for name in _COLUMNS:
        value = row[name]
        if isinstance(value, bool):
            value = "yes" if value else "NO"
        elif not isinstance(value, str):
            value = f"{value / MIB:,.0f}" if isinstance(value, int) else f"{value:.1f}"
        cells.append(f"{value:>14}")
    print("".join(cells), flush=True)


if __name__ == "__main__":
    main()
