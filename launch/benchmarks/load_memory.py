"""Measures the peak memory of loading checkpoints: writes random ones of a model's size, loads each in a new process.

Run `python -m prompt_tuning.launch.benchmarks.load_memory --size=xl --dir=/path/to/scratch`. XL needs 23 GB of disk
while it converts and 12 GB otherwise, and as much memory as its weights take in float32, plus the bound's 512 MiB and
two tensors.
"""

import argparse
import importlib.resources
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.models.config import T5Config

SIZES = ("tiny", "small", "base", "large", "xl")
# What loading may take besides the parameters and twice the largest tensor. Unit: bytes.
_ALLOWANCE = 512 * 2**20
_MIB = 2**20
_COLUMNS = (
    ("stored", "stored", ""),
    ("layout", "layout", ""),
    ("dtype", "dtype", ""),
    ("disk", "on disk", "MiB"),
    ("devices", "on devices", "MiB"),
    ("baseline", "before", "MiB"),
    ("peak", "peak", "MiB"),
    ("bound", "bound", "MiB"),
    ("ok", "ok", ""),
    ("load_seconds", "load", "s"),
    ("digest_seconds", "digest", "s"),
)


def config_of(size: str) -> T5Config:
    """Returns the T5 1.1 of a shipped size; "tiny" is one for tests."""
    if size == "tiny":
        sizes = {"NUM_HEADS": 4, "HEAD_DIM": 8, "EMBED_DIM": 32, "MLP_DIM": 64}
        sizes |= {"NUM_ENCODER_LAYERS": 2, "NUM_DECODER_LAYERS": 2}
    else:
        folder = importlib.resources.files("prompt_tuning") / "configs" / "models" / "sizes"
        text = (folder / f"{size}.gin").read_text()
        sizes = {name: int(value) for name, value in re.findall(r"^(\w+) = (\d+)$", text, re.M)}
    return T5Config(
        vocab_size=32128,
        emb_dim=sizes["EMBED_DIM"],
        num_heads=sizes["NUM_HEADS"],
        num_encoder_layers=sizes["NUM_ENCODER_LAYERS"],
        num_decoder_layers=sizes["NUM_DECODER_LAYERS"],
        head_dim=sizes["HEAD_DIM"],
        mlp_dim=sizes["MLP_DIM"],
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
    rows = []
    for row in measure_all(config_of(flags.size), flags.dir):
        if not rows:
            _print_row({key: name for key, name, _ in _COLUMNS})
            _print_row({key: unit for key, _, unit in _COLUMNS})
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
    from prompt_tuning.launch.benchmarks import random_checkpoints

    shapes = param_shapes(config)

    def write_t5x(path: pathlib.Path) -> None:
        random_checkpoints.write_t5x(path, shapes)

    def write_converted(path: pathlib.Path) -> None:
        original = path.with_name("original")
        random_checkpoints.write_t5x(original, shapes)
        command = [sys.executable, "-m", "prompt_tuning", "convert", str(original), str(path)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        shutil.rmtree(original)

    def write_huggingface(path: pathlib.Path) -> None:
        random_checkpoints.write_huggingface(path, config, shapes)

    writers: Mapping[str, Callable[[pathlib.Path], None]] = {
        "T5X": write_t5x,
        "converted": write_converted,
        "Hugging Face": write_huggingface,
    }
    for kind, write in writers.items():
        path = folder / kind.replace(" ", "_").lower()
        write(path)
        try:
            for layout in ("unscanned", "scanned"):
                for dtype in ("float32", "bfloat16", "int8"):
                    row = measure(path, config, layout=layout, dtype=dtype)
                    disk = random_checkpoints.num_bytes(path)
                    yield {"stored": kind, "layout": layout, "dtype": dtype, "disk": disk, **row}
        finally:
            shutil.rmtree(path)


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
    settings = {name: getattr(config, name) for name in T5Config.__dataclass_fields__}
    settings["scan_layers"] = layout == "scanned"
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
    from prompt_tuning.checkpoints import load as initial
    from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
    from prompt_tuning.models.t5 import T5
    from prompt_tuning.partitioning import PjitPartitioner
    from prompt_tuning.run.arrays import held_shapes

    model = EncoderDecoderModel(T5(T5Config(**settings)), None, None)
    shapes = held_shapes(model, PjitPartitioner(), list(model.param_shapes), dtype)
    shardings = {path: leaf.sharding for path, leaf in shapes.items()}
    baseline = peak_bytes()
    began = time.perf_counter()
    source = initial.open_source(path)
    params = initial.load_params(
        source, shapes, shardings, dtype=dtype, model_shapes=model.param_shapes
    )
    jax.block_until_ready(params)
    loaded = time.perf_counter()
    peak_of_load = peak_bytes()
    fingerprint = digest.params_digest(params)
    stored = [_size(shape, stored) for shape, stored in source.shapes().values()]
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


def _size(shape: Sequence[int], dtype: Any) -> int:
    """Bytes of an array."""
    import math

    return math.prod(shape) * dtype.itemsize


def peak_bytes() -> int:
    """Returns the most memory that was resident in this process so far. Linux only."""
    # getrusage's maximum counts in the parent, as it was when this process was started.
    status = pathlib.Path("/proc/self/status").read_text()
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M)
    assert match is not None, status
    return int(match[1]) * 1024


def _print_row(row: Mapping[str, Any]) -> None:
    """Prints one row of the table."""
    cells = []
    for key, _, unit in _COLUMNS:
        value = row[key]
        if isinstance(value, bool):
            value = "yes" if value else "NO"
        elif not isinstance(value, str):
            value = f"{value / _MIB:,.0f}" if unit == "MiB" else f"{value:.1f}"
        cells.append(f"{value:<13}" if key in ("stored", "layout", "dtype") else f"{value:>11}")
    print("".join(cells), flush=True)


if __name__ == "__main__":
    main()
