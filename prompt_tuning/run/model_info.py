"""The table of a run's parameters, written to `model-info.txt`."""

import math
from collections.abc import Mapping
from typing import Any

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import int8
from prompt_tuning.types import PyTree


def model_info(model: EncoderDecoderModel, trainable: PyTree, frozen: PyTree) -> str:
    """Returns one line a parameter: path, shape, dtype, axes, trainable or frozen, sharding; then the totals.

    Args:
      model: Names the logical axes.
      trainable: Nested dict of arrays.
      frozen: Nested dict of arrays.
    """
    rows = [("parameter", "shape", "dtype", "axes", "kind", "sharding")]
    axes = int8.with_scales(model.param_axes)
    counts = {}
    for kind, params in (("trainable", trainable), ("frozen", frozen)):
        flat = tree.flatten(params)
        # Scales are how parameters are held, not parameters.
        counts[kind] = sum(
            math.prod(leaf.shape) for path, leaf in flat.items() if int8.kernel_of(path) == path
        )
        rows += [_row(path, leaf, axes, kind) for path, leaf in flat.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    total = sum(counts.values())
    lines.append("")
    lines.append(f"Total parameters: {total:,}")
    lines.append(
        f"Trainable parameters: {counts['trainable']:,} ({counts['trainable'] / total:.5%})"
    )
    return "\n".join(lines) + "\n"


def _row(path: str, leaf: Any, axes: Mapping[str, tuple], kind: str) -> tuple[str, ...]:
    """One parameter's cells."""
    spec = getattr(leaf.sharding, "spec", "")
    return (path, str(tuple(leaf.shape)), str(leaf.dtype), str(axes[path]), kind, str(spec))
