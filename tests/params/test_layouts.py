"""Conversion between T5X's scanned and unscanned parameters."""

import json

import numpy as np
import pytest

from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from tests import both_layouts
from tests.helpers import GOLDEN


@pytest.fixture(scope="module")
def flat() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "params.npz"))


@pytest.fixture(scope="module")
def stacked() -> dict[str, dict]:
    with (GOLDEN / "scanned_layout.json").open() as file:
        return json.load(file)["params"]


def test_scanned_names_and_shapes_are_t5x(flat, stacked):
    scanned = both_layouts.to_scanned(flat)
    for path, entry in stacked.items():
        assert scanned[path].shape == tuple(entry["shape"]), path
    assert set(scanned) - set(stacked) == {
        "token_embedder/embedding",
        "encoder/encoder_norm/scale",
        "decoder/decoder_norm/scale",
        "decoder/logits_dense/kernel",
    }


def test_each_layer_is_where_t5x_puts_it(flat):
    scanned = both_layouts.to_scanned(flat)
    for i in range(2):
        query = flat[f"decoder/layers_{i}/self_attention/query/kernel"].reshape(32, 4, 8)
        np.testing.assert_array_equal(
            scanned["decoder/decoder/self_attention/query/kernel"][:, i], query
        )
        out = flat[f"encoder/layers_{i}/attention/out/kernel"].reshape(4, 8, 32)
        np.testing.assert_array_equal(scanned["encoder/encoder/attention/out/kernel"][:, i], out)
        scale = flat[f"encoder/layers_{i}/pre_mlp_layer_norm/scale"]
        np.testing.assert_array_equal(
            scanned["encoder/encoder/pre_mlp_layer_norm/scale"][:, i], scale
        )
        table = flat["encoder/relpos_bias/rel_embedding"]
        np.testing.assert_array_equal(
            scanned["encoder/encoder/relpos_bias/rel_embedding"][:, i], table
        )


def test_shapes_follow_from_either_layout(flat):
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    scanned = {path: leaf.shape for path, leaf in both_layouts.to_scanned(flat).items()}
    assert layouts.scanned_shapes(shapes) == layouts.scanned_shapes(scanned) == scanned


def test_each_layer_has_its_path_shape_and_values(flat):
    scanned = both_layouts.to_scanned(flat)
    compared = 0
    for path, leaf in scanned.items():
        sources = layouts.unscanned_paths(path, 2, relative_bias_per_layer=True)
        layers = layouts.split_layers(path, leaf)
        for source, layer in zip(sources, layers, strict=True):
            target, number = layouts.scanned_path(source)
            assert target == path
            assert number == (sources.index(source) if layouts.is_stacked(path) else None)
            if source in flat:
                np.testing.assert_array_equal(layer, flat[source])
                compared += 1
    assert compared == len(flat) - 2
    assert layouts.scanned_path("encoder/layers_11/mlp/wo/kernel") == (
        "encoder/encoder/mlp/wo/kernel",
        11,
    )


def test_more_than_ten_layers_keep_their_order():
    """Names sort as layers_10 < layers_2; layers must not."""
    path = "encoder/encoder/mlp/wo/kernel"
    paths = [f"encoder/layers_{i}/mlp/wo/kernel" for i in range(12)]
    assert layouts.unscanned_paths(path, 12) == paths
    assert layouts.scanned_shapes(dict.fromkeys(sorted(paths), (2, 3))) == {path: (2, 12, 3)}


def test_missing_layers_and_heads_are_named(flat):
    partial = {path: leaf.shape for path, leaf in flat.items()}
    del partial["encoder/layers_0/mlp/wo/kernel"]
    with pytest.raises(
        CheckpointError, match=r"encoder/encoder/mlp/wo/kernel are missing: got 'layers \[1\]'"
    ):
        layouts.scanned_shapes(partial)
    with pytest.raises(CheckpointError, match="number of attention heads is unknown"):
        layouts.scanned_shapes({"encoder/layers_0/attention/out/kernel": (2, 2)})
