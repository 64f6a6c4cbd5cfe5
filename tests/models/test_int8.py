"""A model with int8 kernels is the model with the kernels that they stand for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.models.layers import Dense
from prompt_tuning.params import int8
from prompt_tuning.params.names import PROMPT_PATH
from tests import both_layouts
from tests.helpers import tiny_config
from tests.models.conftest import logits_of, make_model, max_difference

# Float32 sums in another order; the logits are of the order of 1.
SAME = 2e-5


def to_int8(flat):
    """Kernels in int8, everything else as it is."""
    kernels = {path: x for path, x in flat.items() if int8.is_kernel(path)}
    assert len(kernels) > 10
    return {**flat, **int8.hold(kernels, "int8")}


def to_floats(held):
    """Unscanned parameters with the kernels that their int8 forms stand for."""
    scales = {p: x for p, x in held.items() if int8.kernel_of(p) != p}
    floats = {p: x for p, x in held.items() if p not in scales}
    for path, scale in scales.items():
        kernel = int8.kernel_of(path)
        floats[kernel] = np.asarray(held[kernel], np.float32) * np.asarray(scale)[None]
    return floats


@functools.cache
def prompt_gradient(scan_layers=False, remat_policy="none"):
    """(prompt, other parameters, tokens) -> gradient by the prompt, compiled."""
    model = make_model(scan_layers=scan_layers, remat_policy=remat_policy)
    return jax.jit(
        jax.grad(lambda prompt, flat, tokens: loss_fn(model, tokens)(prompt, flat), argnums=0)
    )


def loss_fn(model, tokens):
    """(prompt, other parameters) -> mean cross entropy of the targets."""

    def loss(prompt, flat):
        variables = {"params": tree.unflatten({**flat, PROMPT_PATH: prompt})}
        logits = model.apply(variables, *tokens, enable_dropout=False)
        targets = jnp.asarray(tokens[2])[..., None]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), targets, axis=-1))

    return loss


@pytest.mark.parametrize("join_axes", [False, True])
@pytest.mark.parametrize("num_inputs", [1, 2])
def test_an_output_moves_by_half_a_scale_of_each_input_at_most(join_axes, num_inputs):
    rng = np.random.default_rng(0)
    path = (
        "encoder/layers_0/mlp/wi/kernel" if join_axes else "encoder/layers_0/attention/out/kernel"
    )
    inputs = (8, 4)[:num_inputs]
    x = rng.normal(size=(2, 3, *inputs)).astype(np.float32)
    matrix = rng.normal(size=(np.prod(inputs), 15)).astype(jnp.bfloat16).astype(np.float32)
    held = int8.hold({path: matrix}, "int8")
    whole, scale = held[path], held[int8.scale_path(path)]
    shape = matrix.shape if join_axes else (*inputs, 3, 5)
    axes = tuple("abcd"[: len(shape)])
    dense = Dense(tiny_config(), (3, 5), axes, num_inputs=num_inputs, join_axes=join_axes)
    params = {"kernel": whole.reshape(shape), "kernel_scale": scale}
    if not join_axes:
        params["kernel_scale"] = scale.reshape(3, 5)
    out = np.asarray(dense.apply({"params": params}, x))
    exact = x.reshape(2, 3, -1) @ matrix
    bound = np.abs(x).reshape(2, 3, -1).sum(-1, keepdims=True) * np.asarray(scale) / 2
    difference = np.abs(out.reshape(2, 3, 15) - exact)
    assert 0 < difference.max() and np.all(difference <= bound + 1e-5)


def test_logits_and_gradients_are_those_of_the_kernels_stood_for(reference):
    model = make_model()
    held = to_int8(reference.frozen)
    floats = to_floats(held)
    same = logits_of(model, {**floats, PROMPT_PATH: reference.prompt}, reference.tokens)
    logits = logits_of(model, {**held, PROMPT_PATH: reference.prompt}, reference.tokens)
    real = reference.is_target
    assert max_difference(logits[real], same[real]) <= SAME

    expected, actual = (
        prompt_gradient()(reference.prompt, params, reference.tokens) for params in (floats, held)
    )
    assert np.abs(expected).max() > 0
    assert max_difference(actual, expected) <= 1e-4 * np.abs(expected).max()


def test_the_loss_moves_less_than_half_a_scale_of_each_weight_may_move_it(reference):
    """First order: every weight is off by half its scale, in the direction that its gradient points to."""
    model = make_model()
    held = to_int8(reference.frozen)
    kernels = {p: jnp.asarray(x) for p, x in reference.frozen.items() if int8.is_kernel(p)}
    rest = {p: x for p, x in reference.frozen.items() if p not in kernels}
    loss = loss_fn(model, reference.tokens)
    value, slopes = jax.jit(jax.value_and_grad(lambda k: loss(reference.prompt, {**rest, **k})))(
        kernels
    )
    bound = sum(
        float(jnp.sum(jnp.abs(slope) * held[int8.scale_path(path)][None])) / 2
        for path, slope in slopes.items()
    )
    moved = abs(float(jax.jit(loss)(reference.prompt, held)) - float(value))
    # The signs of roundings are as good as random: the loss moves by a small part of the bound.
    assert 0 < moved < bound / 4


def test_scanned_and_recomputed_layers_give_the_same(reference):
    held = {**to_int8(reference.frozen), PROMPT_PATH: reference.prompt}
    stacked = both_layouts.to_scanned(held)
    assert stacked["encoder/encoder/attention/query/kernel_scale"].shape == (4, 2, 8)
    scanned = make_model(scan_layers=True, remat_policy="full")
    a = logits_of(make_model(), held, reference.tokens)
    b = logits_of(scanned, stacked, reference.tokens)
    real = reference.is_target
    assert max_difference(a[real], b[real]) <= SAME
    gradients = []
    for gradient, flat in ((prompt_gradient(), held), (prompt_gradient(True, "full"), stacked)):
        rest = {p: x for p, x in flat.items() if p != PROMPT_PATH}
        gradients.append(np.asarray(gradient(reference.prompt, rest, reference.tokens)))
    assert max_difference(*gradients) <= 1e-4 * np.abs(gradients[0]).max()


def test_activations_in_bfloat16(reference):
    held = {**to_int8(reference.frozen), PROMPT_PATH: reference.prompt}
    wide, narrow = (
        logits_of(make_model(dtype=dtype), held, reference.tokens)[reference.is_target]
        for dtype in ("float32", "bfloat16")
    )
    floats = {**to_floats(to_int8(reference.frozen)), PROMPT_PATH: reference.prompt}
    same = logits_of(make_model(dtype="bfloat16"), floats, reference.tokens)
    rounding = max_difference(same[reference.is_target], wide)
    assert narrow.dtype == np.float32 and 0 < max_difference(narrow, wide) <= 2 * rounding
