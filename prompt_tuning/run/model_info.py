"""The table of a run's parameters, written to `model-info.txt`."""

import math

from prompt_tuning import tree
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.params import int8
from prompt_tuning.run.text_table import aligned
from prompt_tuning.types import PyTree


def model_info(model: EncoderDecoderModel, trainable: PyTree, frozen: PyTree) -> str:
    """Returns one line a parameter: path, shape, dtype, axes, trainable or frozen, sharding; then the totals.

    Args:
      model: Names the logical axes.
      trainable: Nested dict of arrays.
      frozen: Nested dict of arrays.
    """
    rows: list[tuple[str, ...]] = [("parameter", "shape", "dtype", "axes", "kind", "sharding")]
    axes = int8.with_scales(model.param_axes)
    counts = {}
    for kind, params in (("trainable", trainable), ("frozen", frozen)):
        flat = tree.flatten(params)
        # Scales are how parameters are held, not parameters.
        counts[kind] = sum(
            math.prod(leaf.shape) for path, leaf in flat.items() if int8.kernel_of(path) == path
        )
        for path, leaf in flat.items():
            spec = getattr(leaf.sharding, "spec", "")
            cells = (path, tuple(leaf.shape), leaf.dtype, axes[path], kind, spec)
            rows.append(tuple(map(str, cells)))
    total, trained = sum(counts.values()), counts["trainable"]
    return (
        f"{aligned(rows)}\n\nTotal parameters: {total:,}\n"
        f"Trainable parameters: {trained:,} ({trained / total:.5%})\n"
    )
