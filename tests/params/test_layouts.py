"""Conversion between T5X's scanned and unscanned parameters."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from tests.helpers import GOLDEN


@pytest.fixture(scope="module")
def flat() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN / "params.npz"))


@pytest.fixture(scope="module")
def stacked() -> dict[str, dict]:
    with (GOLDEN / "scanned_layout.json").open() as file:
        return json.load(file)["params"]


def _assert_same(a, b):
    assert set(a) == set(b) and len(a) > 20
    for path in a:
        assert a[path].dtype == b[path].dtype, path
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def test_scanned_names_and_shapes_are_t5x(flat, stacked):
    scanned = layouts.to_scanned(flat)
    for path, entry in stacked.items():
        assert scanned[path].shape == tuple(entry["shape"]), path
    assert set(scanned) - set(stacked) == {
        "token_embedder/embedding",
        "encoder/encoder_norm/scale",
        "decoder/decoder_norm/scale",
        "decoder/logits_dense/kernel",
    }


def test_each_layer_is_where_t5x_puts_it(flat):
    scanned = layouts.to_scanned(flat)
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


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("to_array", [np.asarray, jnp.asarray])
def test_there_and_back_is_exact(flat, nested, dtype, to_array):
    params = {path: to_array(leaf.astype(dtype)) for path, leaf in flat.items()}
    params["encoder/prompt/prompt/prompt"] = to_array(np.ones((3, 32), np.float32))
    given = tree.unflatten(params) if nested else params
    scanned = layouts.to_scanned(given)
    back = layouts.to_unscanned(scanned)
    assert ("encoder" in back) == nested
    kind = np.ndarray if to_array is np.asarray else jax.Array
    assert all(isinstance(leaf, kind) for leaf in jax.tree.leaves(scanned))
    _assert_same(tree.flatten(back), params)
    assert layouts.is_scanned(tree.flatten(scanned)) and not layouts.is_scanned(params)


def test_converted_twice_is_converted_once(flat):
    scanned = layouts.to_scanned(flat)
    _assert_same(layouts.to_scanned(scanned), scanned)
    _assert_same(layouts.to_unscanned(flat), flat)


def test_more_than_ten_layers_keep_their_order():
    """Names sort as layers_10 < layers_2; layers must not."""
    params = {
        f"encoder/layers_{i}/mlp/wo/kernel": np.full((2, 3), i, np.float32) for i in range(12)
    }
    scanned = layouts.to_scanned(params, num_heads=4)["encoder/encoder/mlp/wo/kernel"]
    np.testing.assert_array_equal(scanned[0, :, 0], np.arange(12))
    assert list(layouts.to_unscanned({"encoder/encoder/mlp/wo/kernel": scanned})) == list(params)


def test_leaf_by_leaf_equals_the_tree(flat):
    """What a loader needs that reads one parameter at a time."""
    scanned = layouts.to_scanned(flat)
    for path, leaf in scanned.items():
        sources = layouts.unscanned_paths(path, 2)
        made = layouts.stack_layers(
            path, [flat[source] for source in sources], num_layers=2, num_heads=4
        )
        np.testing.assert_array_equal(made, leaf)
        assert list(layouts.split_layers(path, leaf)) == sources
        for source in sources:
            assert layouts.scanned_path(source)[0] == path
    assert layouts.scanned_path("encoder/layers_11/mlp/wo/kernel") == (
        "encoder/encoder/mlp/wo/kernel",
        11,
    )


def test_shapes_convert_without_values(flat):
    shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in flat.items()}
    scanned = jax.eval_shape(layouts.to_scanned, shapes)
    back = jax.eval_shape(layouts.to_unscanned, scanned)
    assert {p: leaf.shape for p, leaf in back.items()} == {
        p: leaf.shape for p, leaf in flat.items()
    }


@pytest.mark.parametrize("to_array", [np.asarray, jnp.asarray])
def test_tables_trained_apart_cannot_be_one(flat, to_array):
    scanned = {path: to_array(leaf) for path, leaf in layouts.to_scanned(flat).items()}
    path = "decoder/decoder/relpos_bias/rel_embedding"
    changed = np.array(scanned[path])
    changed[0, 1, 0] += 1e-6
    with pytest.raises(CheckpointError, match="layer 1 differs from layer 0"):
        layouts.to_unscanned({**scanned, path: to_array(changed)})


def test_missing_layers_and_heads_are_named(flat):
    partial = {
        path: leaf for path, leaf in flat.items() if path != "encoder/layers_0/mlp/wo/kernel"
    }
    with pytest.raises(
        CheckpointError, match=r"encoder/encoder/mlp/wo/kernel are missing: got 'layers \[1\]'"
    ):
        layouts.to_scanned(partial)
    with pytest.raises(CheckpointError, match="pass num_heads"):
        layouts.to_scanned({"encoder/layers_0/mlp/wo/kernel": np.zeros((2, 2))})
