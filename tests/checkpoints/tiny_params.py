"""A parameter set small enough to be written to disk in a test, in T5X's names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import both_layouts

LAYERS, EMBED, HEADS, HEAD_DIM, MLP, VOCAB, BUCKETS = 2, 8, 4, 2, 16, 16, 4


def make_unscanned(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random float32 parameters of an encoder with `LAYERS` layers, unscanned."""
    rng = np.random.default_rng(seed)
    shapes = {
        "token_embedder/embedding": (VOCAB, EMBED),
        "encoder/encoder_norm/scale": (EMBED,),
        "encoder/relpos_bias/rel_embedding": (HEADS, BUCKETS),
    }
    for i in range(LAYERS):
        layer = f"encoder/layers_{i}"
        shapes |= {
            f"{layer}/attention/query/kernel": (EMBED, HEADS * HEAD_DIM),
            f"{layer}/attention/out/kernel": (HEADS * HEAD_DIM, EMBED),
            f"{layer}/mlp/wi_0/kernel": (EMBED, MLP),
            f"{layer}/pre_mlp_layer_norm/scale": (EMBED,),
        }
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}


def to_scanned(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the same parameters in the scanned layout."""
    return both_layouts.to_scanned(params, num_heads=HEADS)


def logical_axes(params: dict[str, np.ndarray]) -> dict[str, tuple[str, ...]]:
    """Returns the logical axes of unscanned parameters."""
    by_ending = {
        "embedding": ("vocab", "embed"),
        "rel_embedding": ("heads", "relpos_buckets"),
        "query/kernel": ("embed", "joined_kv"),
        "out/kernel": ("joined_kv", "embed"),
        "wi_0/kernel": ("embed", "mlp"),
        "scale": ("embed",),
    }
    return {
        path: next(axes for end, axes in by_ending.items() if path.endswith("/" + end))
        for path in params
    }
