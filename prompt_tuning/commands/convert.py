"""Write a T5X or Hugging Face checkpoint once in a form that loads fast."""

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning.checkpoints.config import DTYPES
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.source import recorded_model
from prompt_tuning.config.flags import command_parser

if TYPE_CHECKING:
    from prompt_tuning.checkpoints.source import ParamSource

_DESCRIPTION = """\
Writes the weights of a T5X checkpoint, a Hugging Face model or a checkpoint of a run into TARGET, in a form that loads
faster. TARGET then goes wherever a checkpoint does: INITIAL_CHECKPOINT_PATH, CHECKPOINT_PATH. Weights that only stay
frozen may be stored as bfloat16, in half the room, or as int8, in a quarter: the matrices as whole numbers with a scale
for each output, everything else in bfloat16. Nothing else can be made of int8 again. --merge makes a plain model of one
that was tuned with (IA)3 or LoRA.
"""


def main(argv: Sequence[str]) -> None:
    """Converts one checkpoint and says how large the result is and how long it took.

    Args:
      argv: Flags.

    Raises:
      CheckpointError: If the source cannot be read, or the target is not empty.
    """
    parser = command_parser("convert", _DESCRIPTION)
    parser.add_argument("source", help="the checkpoint's directory; local or gs://")
    parser.add_argument("target", help="directory to make; local or gs://")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="how to store the weights (default: as they are, float16 as float32); a prompt is always kept as it is",
    )
    parser.add_argument(
        "--scan_layers",
        action="store_true",
        help="stack the layers, for models with network.T5Config.scan_layers = True (default: layer by layer, as the"
        " shipped sizes have them); either one loads into both",
    )
    parser.add_argument(
        "--merge",
        nargs="?",
        const="",
        metavar="FILE",
        help="take (IA)3's factors or LoRA's products into the weights: those of SOURCE, a run's checkpoint, or of a"
        " file, a run or an adapter that METHOD_FILE may name",
    )
    flags = parser.parse_args(list(argv))
    began = time.perf_counter()
    num_params, num_bytes = convert(
        flags.source,
        flags.target,
        dtype=flags.dtype,
        scan_layers=flags.scan_layers,
        merge=flags.merge,
    )
    seconds = time.perf_counter() - began
    print(
        f"{flags.target}: {num_params:,} parameters, {num_bytes / 2**20:,.0f} MiB, {seconds:.1f} s"
    )


def convert(
    source_path: str,
    target_path: str,
    *,
    dtype: str | None = None,
    scan_layers: bool = False,
    merge: str | None = None,
    **writer_options: Any,
) -> tuple[int, int]:
    """Writes the weights of a checkpoint into a directory of this project's own form.

    Args:
      source_path: Any checkpoint that a run can start from.
      target_path: Directory to make.
      dtype: "float32", "bfloat16" or "int8"; None keeps what is stored, but makes float16 float32. Prompts keep theirs.
      scan_layers: Whether to stack the layers.
      merge: What a method added, to be taken into the weights, in any form that `method_files.read.read_set` takes; ""
        for what the checkpoint itself holds, None to merge nothing.
      **writer_options: Of `weights_format.WeightsWriter`.

    Returns:
      How many parameters there are, and the size in bytes of what holds them.

    Raises:
      CheckpointError: If the source cannot be read, or the target is not empty.
    """
    import jax
    import jax.numpy as jnp

    from prompt_tuning.checkpoints import digest, load, one_writer
    from prompt_tuning.checkpoints.formats import weights
    from prompt_tuning.checkpoints.method_files import merged
    from prompt_tuning.checkpoints.method_files.read import read_set
    from prompt_tuning.params import int8
    from prompt_tuning.params.names import is_added

    source = open_source(source_path)
    if merge is not None:
        source = merged.MergedSource(source, read_set(merge or source.path, setting="--merge"))
    shapes = _scanned_shapes(source) if scan_layers else load.unscanned_shapes(source)
    groups = load.links_of(source, shapes)
    kept = load.kept_dtypes(source, groups)
    held = {path: tuple(shape) for path, shape in shapes.items()}
    if dtype == int8.INT8:
        held = int8.with_scales(held)
    dtypes = {
        path: jnp.dtype(int8.held_dtype(path, dtype))
        if dtype and not is_added(path)
        else kept.get(path, jnp.dtype(jnp.float32))
        for path in held
    }
    read = load.stored_dtypes(source, held, dtypes)
    with one_writer.holding(target_path, "TARGET"):
        writer = weights.WeightsWriter(target_path, **writer_options)
        fingerprint = digest.Digest()
        num_bytes = done = 0
        for path, array in load.whole_arrays(source, groups, held, read):
            whole = {path: array}
            if read[path] != dtypes[path]:
                whole = jax.device_get(int8.hold(whole, int8.INT8))
            for name, leaf in whole.items():
                writer.write(name, leaf)
                num_bytes += leaf.nbytes
            fingerprint.add(whole)
            done += 1
            _show_progress(done, len(read))
        writer.finish(source=_origin_of(source), digest=fingerprint.hexdigest())
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    return sum(n for path, n in sizes.items() if int8.kernel_of(path) == path), num_bytes


def _origin_of(source: "ParamSource") -> dict[str, Any]:
    """What is recorded of a checkpoint that was converted."""
    return {
        "kind": getattr(source, "source_kind", source.kind),
        "path": str(source.path),
        "step": source.step,
        "frozen_digest": source.frozen_digest,
        "trainable_paths": sorted(source.trainable_paths),
        "settings": source.settings,
        "metadata": getattr(source, "metadata", {}),
    }


def _scanned_shapes(source: "ParamSource") -> dict[str, tuple[int, ...]]:
    """Path -> shape of the source's parameters, layers stacked."""
    from prompt_tuning.params import layouts

    model = recorded_model(source)
    # Stacks with sizes of their own are T5Gemma's.
    sizes = {stack: model[stack]["head_dim"] for stack in ("encoder", "decoder") if stack in model}
    shapes = {path: shape for path, (shape, _) in source.shapes().items()}
    return layouts.scanned_shapes(shapes, sizes)


def _show_progress(done: int, total: int) -> None:
    """Says how far it is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total} arrays", end="\n" if done == total else "", file=sys.stderr)
