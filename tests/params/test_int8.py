"""int8 is the nearest whole number of steps, wherever the kernel lies and however it is laid out."""

import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.params import int8, layouts
from prompt_tuning.partitioning import PjitPartitioner
from tests import both_layouts
from tests.checkpoints.tiny_params import HEADS, logical_axes, make_unscanned

KERNELS = (
    ("encoder/layers_0/mlp/wi_0/kernel", (8, 16), (0,)),
    ("decoder/decoder/mlp/wo/kernel", (16, 2, 8), (0,)),
    ("encoder/encoder/attention/query/kernel", (8, 2, 4, 2), (0,)),
    ("encoder/encoder/attention/out/kernel", (4, 2, 2, 8), (0, 2)),
    ("encoder/layers_0/attention/out/kernel", (8, 8), (0,)),
)


def rounded(values: np.ndarray) -> np.ndarray:
    """The bfloat16 roundings, as float32."""
    return values.astype(jnp.bfloat16).astype(np.float32)


def dequantized(path, whole, scale) -> np.ndarray:
    """The kernel that an int8 form stands for, as float32."""
    scale = np.asarray(scale)
    if layouts.is_stacked(path):
        scale = np.moveaxis(scale, layouts.LAYERS_AXIS, 0)
    axes = dict((path, axes) for path, _, axes in KERNELS)[path]
    return np.asarray(whole, np.float32) * np.expand_dims(scale, axes)


@pytest.mark.parametrize(("path", "shape", "axes"), KERNELS)
def test_values_are_half_a_scale_away_at_most(path, shape, axes):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    whole, scale = int8.quantize(path, kernel)
    assert whole.dtype == jnp.int8 and whole.shape == shape and scale.dtype == jnp.float32
    assert {path: shape, int8.scale_path(path): scale.shape} == int8.with_scales({path: shape})
    # Each channel uses the whole range.
    assert np.all(np.abs(np.asarray(whole)).max(axis=axes) == int8.STEPS)
    steps = dequantized(path, np.ones(shape), scale)
    difference = np.abs(dequantized(path, whole, scale) - rounded(kernel))
    assert np.all(difference <= steps * (0.5 + 1e-6))


def test_every_value_is_the_nearest_step_computed_exactly():
    rng = np.random.default_rng(0)
    kernel = rounded(rng.normal(size=(64, 48)).astype(np.float32))
    # Channels whose values lie at halves of steps, where one rounding too many would show.
    kernel[:, :24] = rng.integers(-127, 128, (64, 24)) / 2
    kernel[0, :24] = 127
    whole, _ = int8.quantize("a/kernel", kernel)
    checked = 0
    for column, steps in zip(kernel.T, np.asarray(whole).T, strict=True):
        largest = fractions.Fraction(float(np.abs(column).max()))
        for value, got in zip(column, steps, strict=True):
            exact = abs(fractions.Fraction(float(value))) * 127 / largest
            nearest = (exact + fractions.Fraction(1, 2)).__floor__()
            assert got == nearest * np.sign(value), (value, float(largest))
            checked += 1
    assert checked == 64 * 48


def test_float32_and_bfloat16_copies_give_the_same():
    kernel = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    forms = [int8.quantize("a/kernel", k) for k in (kernel, kernel.astype(jnp.bfloat16))]
    for a, b in zip(*forms, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_channel_of_zeros_stays_zero():
    kernel = np.zeros((8, 2), np.float32)
    kernel[3, 1] = -2.0
    whole, scale = int8.quantize("a/kernel", kernel)
    np.testing.assert_array_equal(scale, np.asarray([0.0, 2.0 / 127], np.float32))
    assert np.asarray(whole)[3, 1] == -127 and np.count_nonzero(whole) == 1


@pytest.mark.parametrize("num_partitions", [1, 4, 8])
def test_sharding_changes_nothing(num_partitions):
    params = {p: x for p, x in make_unscanned().items() if int8.is_kernel(p)}
    params = {p: np.tile(x, (2, 2)) for p, x in params.items()}
    shapes = int8.with_scales({p: x.shape for p, x in params.items()})
    axes = int8.with_scales(logical_axes(params))
    shardings = PjitPartitioner(num_partitions=num_partitions).param_shardings(axes, shapes)
    placed = {p: jax.device_put(x, shardings[p]) for p, x in params.items()}
    held = int8.hold(placed, "int8", shardings)
    expected = int8.hold(params, "int8")
    assert set(held) == set(expected) == set(shapes) and len(held) == 12
    for path, array in held.items():
        assert isinstance(array, jax.Array)
        assert array.sharding.is_equivalent_to(shardings[path], array.ndim), path
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_layers_that_are_stacked_have_the_scales_of_layers_apart():
    params = make_unscanned()
    to_scanned = lambda p: both_layouts.to_scanned(p, num_heads=HEADS)  # noqa: E731
    apart, stacked = (int8.hold(p, "int8") for p in (params, to_scanned(params)))
    expected = to_scanned(apart)
    assert set(stacked) == set(expected) and len(stacked) == 10
    for path in stacked:
        np.testing.assert_array_equal(stacked[path], expected[path], err_msg=path)
    back = both_layouts.to_unscanned(stacked)
    for path in apart:
        np.testing.assert_array_equal(back[path], apart[path], err_msg=path)


def test_what_is_no_kernel_is_bfloat16_and_scales_have_the_outputs_axes():
    held = int8.hold(make_unscanned(), "int8")
    others = {p for p, x in held.items() if x.dtype == jnp.bfloat16}
    assert {p.rpartition("/")[2] for p in others} == {"embedding", "rel_embedding", "scale"}
    axes = {
        "encoder/encoder/attention/query/kernel": ("embed", "layers", "heads", "kv"),
        "encoder/encoder/attention/out/kernel": ("heads", "layers", "kv", "embed"),
        "encoder/encoder/mlp/wi/kernel": ("embed", "layers", "mlp"),
        "decoder/logits_dense/kernel": ("embed", "vocab"),
    }
    scales = {p: names for p, names in int8.with_scales(axes).items() if p.endswith("_scale")}
    assert list(scales.values()) == [
        ("heads", "layers", "kv"),
        ("embed", "layers"),
        ("mlp", "layers"),
        ("vocab",),
    ]
    assert all(int8.kernel_of(p) in axes for p in scales)
