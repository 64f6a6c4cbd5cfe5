"""Factors in the weights of a checkpoint, in either layout and part by part."""

import pathlib
import types
from typing import Any

import numpy as np
import pytest

from prompt_tuning.checkpoints.method_files.merged import MergedSource
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.errors import CheckpointError
from tests import both_layouts

LAYERS, HEADS, DEPTH, WIDTH, HIDDEN = 2, 3, 2, 5, 4
OUTPUTS, INPUTS = ("query", "key"), ("out", "wo")
SIZES = {
    "attention/query": (WIDTH, HEADS * DEPTH),
    "attention/key": (WIDTH, HEADS * DEPTH),
    "attention/out": (HEADS * DEPTH, WIDTH),
    "mlp/wi_0": (WIDTH, HIDDEN),
    "mlp/wo": (HIDDEN, WIDTH),
}


def weights_and_factors():
    """Weights layer by layer, factors, and the weights with the factors in them."""
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    weights, factors, merged = {}, {}, {}
    for layer in range(LAYERS):
        for name, shape in SIZES.items():
            place = f"encoder/layers_{layer}/{name}"
            kernel = weights[f"{place}/kernel"] = draw(shape)
            merged[f"{place}/kernel"] = kernel
            kind = name.split("/")[1]
            if kind in OUTPUTS:
                x = factors[f"{place}/ia3_scaling"] = draw(shape[1])
                merged[f"{place}/kernel"] = kernel * x
            if kind in INPUTS:
                x = factors[f"{place}/ia3_scaling"] = draw(shape[0])
                merged[f"{place}/kernel"] = kernel * x[:, None]
    return weights, factors, merged


def source_of(weights) -> Any:
    """The weights as a `ParamSource`."""
    return types.SimpleNamespace(
        kind="t5x",
        path=pathlib.Path("/weights"),
        step=3,
        settings=None,
        shapes=lambda: {path: (x.shape, x.dtype) for path, x in weights.items()},
        chunks=lambda path: weights[path].shape,
        read=lambda path, index=None: weights[path] if index is None else weights[path][index],
    )


def _set(factors, absent=None):
    settings = {"name": "IA3", "outputs": list(OUTPUTS), "inputs": list(INPUTS)}
    return MethodSet(factors, {METHOD: settings, "exported_from": "/factors"}, absent)


@pytest.mark.parametrize("scanned", [False, True])
def test_kernels_are_scaled_in_either_layout_and_in_parts(scanned):
    weights, factors, expected = weights_and_factors()
    if scanned:
        weights = both_layouts.to_scanned(weights, num_heads=HEADS)
        expected = both_layouts.to_scanned(expected, num_heads=HEADS)
    source = MergedSource(
        source_of({**weights, "encoder/encoder_norm/scale": np.ones(3)}), _set(factors)
    )
    assert set(source.shapes()) == {*weights, "encoder/encoder_norm/scale"}
    for path, x in expected.items():
        np.testing.assert_array_equal(source.read(path), x)
        part = (slice(1, 3), *[slice(0, 2)] * (x.ndim - 1))
        np.testing.assert_array_equal(source.read(path, part), x[part])
    assert source.frozen_digest is None and source.trainable_paths == frozenset()


def test_layers_that_an_adapter_left_out_stay():
    weights, factors, expected = weights_and_factors()
    first = {path: x for path, x in factors.items() if "layers_0" in path}
    source = MergedSource(source_of(weights), _set(first, absent=1.0))
    for path, x in expected.items():
        own = x if "layers_0" in path else weights[path]
        np.testing.assert_array_equal(source.read(path), own)
    stacked = both_layouts.to_scanned(weights, num_heads=HEADS)
    source = MergedSource(source_of(stacked), _set(first, absent=1.0))
    key = source.read("encoder/encoder/attention/key/kernel")
    np.testing.assert_array_equal(key[:, 1], stacked["encoder/encoder/attention/key/kernel"][:, 1])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w, f: f.update({"decoder/layers_9/mlp/wo/ia3_scaling": np.ones(4)}), "layers_9"),
        (lambda w, f: f.update({"encoder/layers_0/mlp/wo/ia3_scaling": np.ones(9)}), "9 of them"),
        (
            lambda w, f: w.update({"encoder/layers_0/mlp/wo/kernel": np.ones((4, 5), np.int8)}),
            "got 'int8'",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, text):
    weights, factors, _ = weights_and_factors()
    change(weights, factors)
    with pytest.raises(CheckpointError, match=text):
        MergedSource(source_of(weights), _set(factors))


def test_several_methods_are_refused_by_name():
    weights, factors, _ = weights_and_factors()
    parts = [{"name": "IA3"}, {"name": "DePT"}]
    found = MethodSet(factors, {METHOD: {"name": "Several", "methods": parts}})
    with pytest.raises(CheckpointError, match="got 'IA3 and DePT', expected one of IA3, LoRA"):
        MergedSource(source_of(weights), found)
