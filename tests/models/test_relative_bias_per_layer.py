"""A relative position table in every layer (UMT5): names, both layouts, and that each layer reads its own."""

import numpy as np
import pytest

from prompt_tuning.errors import CheckpointError
from prompt_tuning.params import layouts
from prompt_tuning.prompts.config import PromptConfig
from tests import both_layouts
from tests.helpers import tiny_config
from tests.models.conftest import logits_of, make_model, max_difference, param_shapes

TABLE = "relpos_bias/rel_embedding"


def per_layer(reference, step: float = 0.25) -> dict[str, np.ndarray]:
    """The reference's parameters with a table of its own in each layer; `step` apart from one to the next."""
    flat = dict(reference.params)
    for stack in ("encoder", "decoder"):
        table = flat.pop(f"{stack}/{TABLE}")
        for i in range(2):
            flat[f"{stack}/layers_{i}/{TABLE}"] = np.roll(table, i, axis=1) * np.float32(
                1 + step * i
            )
    return flat


def test_names_are_layers_own_and_scanned_ones_t5x():
    config = tiny_config(relative_bias_per_layer=True, num_decoder_layers=3)
    shapes = param_shapes(config, PromptConfig(6))
    tables = sorted(path for path in shapes if path.endswith(TABLE))
    assert tables == [
        *(f"decoder/layers_{i}/{TABLE}" for i in range(3)),
        *(f"encoder/layers_{i}/{TABLE}" for i in range(2)),
    ]
    assert {shapes[path].shape for path in tables} == {(4, 32)}
    scanned = tiny_config(num_decoder_layers=3, scan_layers=True)
    ours = param_shapes(
        tiny_config(relative_bias_per_layer=True, num_decoder_layers=3, scan_layers=True)
    )
    assert ours == param_shapes(scanned)


def test_each_layer_keeps_its_table_in_the_scanned_layout(reference):
    flat = per_layer(reference)
    scanned = both_layouts.to_scanned(flat)
    assert scanned[f"encoder/encoder/{TABLE}"].shape == (4, 2, 32)
    np.testing.assert_array_equal(
        scanned[f"decoder/decoder/{TABLE}"][:, 1], flat[f"decoder/layers_1/{TABLE}"]
    )
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    expected = {path: leaf.shape for path, leaf in scanned.items()}
    assert layouts.scanned_shapes(shapes) == expected and len(shapes) == 55
    path = f"encoder/encoder/{TABLE}"
    names = layouts.unscanned_paths(path, 2, relative_bias_per_layer=True)
    assert names == [f"encoder/layers_0/{TABLE}", f"encoder/layers_1/{TABLE}"]
    assert layouts.scanned_path(names[1]) == (path, 1)
    del shapes[names[1]]
    with pytest.raises(CheckpointError, match=f"{path} are missing"):
        layouts.scanned_shapes(shapes)


def test_equal_tables_are_one_table_and_others_are_not(reference):
    shared = logits_of(make_model(), reference.params, reference.tokens)
    model = make_model(relative_bias_per_layer=True)
    flat = {**per_layer(reference)}
    for stack in ("encoder", "decoder"):
        for i in range(2):
            flat[f"{stack}/layers_{i}/{TABLE}"] = reference.params[f"{stack}/{TABLE}"]
    real = reference.is_target
    same = logits_of(model, flat, reference.tokens)
    assert max_difference(same[real], shared[real]) < 1e-6
    for stack in ("encoder", "decoder"):
        path = f"{stack}/layers_1/{TABLE}"
        changed = logits_of(
            model, {**flat, path: flat[path] + np.eye(4, 32, dtype=np.float32)}, reference.tokens
        )
        assert max_difference(changed[real], shared[real]) > 1e-3, path


@pytest.mark.parametrize("remat_policy", ["none", "full"])
def test_scanned_equals_unscanned(reference, remat_policy):
    flat = per_layer(reference)
    models = [
        make_model(relative_bias_per_layer=True, scan_layers=scan, remat_policy=remat_policy)
        for scan in (False, True)
    ]
    logits = [
        logits_of(model, params, reference.tokens)
        for model, params in zip(models, (flat, both_layouts.to_scanned(flat)), strict=True)
    ]
    real = reference.is_target
    assert max_difference(logits[0][real], logits[1][real]) < 1e-5
