"""Adafactor against T5X's own numbers, and the properties T5X's scanned layers ask for."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.params import layouts
from prompt_tuning.training.adafactor import Adafactor

PROMPT_PATH = "encoder/prompt/prompt/prompt"
PAPER = Adafactor(multiply_by_parameter_scale=False, weight_decay_rate=1e-5)


def factored_state(opt_state) -> Any:
    """Returns the second moments inside the state of unstacked parameters."""
    (state,) = [part for part in opt_state["unstacked"] if isinstance(part, optax.FactoredState)]
    return state


@functools.partial(jax.jit, static_argnames="tx")
def update(tx, params, grads, opt_state):
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def test_a_restored_step_makes_the_first_update_the_sign_of_the_gradient():
    params = {"p": jnp.ones((4, 8))}
    grads = {"p": jax.random.normal(jax.random.key(0), (4, 8))}
    settings = Adafactor(restored_step=1_100_000, multiply_by_parameter_scale=False)
    tx: Any = settings.make(lambda step: jnp.float32(0.3))
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["p"], -0.3 * np.sign(grads["p"]), rtol=1e-5)


def test_restored_and_fresh_decay_differ_after_the_first_update():
    grads = [{"p": jax.random.normal(jax.random.key(i), (4, 8)) * 0.1**i} for i in range(3)]
    ends = []
    for restored_step in (0, 1_100_000):
        settings = Adafactor(restored_step=restored_step, multiply_by_parameter_scale=False)
        tx = settings.make(lambda step: jnp.float32(0.3))
        params = {"p": jnp.ones((4, 8))}
        opt_state = tx.init(params)
        for grad in grads:
            params, opt_state = update(tx, params, grad, opt_state)
        ends.append(np.asarray(params["p"]))
    assert np.abs(ends[0] - ends[1]).max() > 0.1


@pytest.mark.parametrize(
    ("length", "factored"), [(100, False), (127, False), (128, True), (150, True)]
)
def test_long_prompts_are_factored(length, factored):
    state = jax.eval_shape(
        PAPER.make(lambda step: 0.3).init, {"p": jax.ShapeDtypeStruct((length, 512), jnp.float32)}
    )
    moments = factored_state(state)
    assert moments.v["p"].shape == ((1,) if factored else (length, 512))
    assert moments.v_row["p"].shape == ((length,) if factored else (1,))


def test_the_state_is_as_large_as_the_trainable_tree():
    state = jax.eval_shape(
        PAPER.make(lambda step: 0.3).init, {"p": jax.ShapeDtypeStruct((100, 512), jnp.float32)}
    )
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert 100 * 512 * 4 <= num_bytes < 100 * 512 * 4 + 100


def test_the_learning_rate_sees_the_updates_of_this_run():
    params = {"p": jnp.zeros((2, 2))}
    tx: Any = Adafactor(restored_step=1_100_000, multiply_by_parameter_scale=False).make(
        lambda step: step.astype(jnp.float32)
    )
    opt_state = tx.init(params)
    sizes, update = [], jax.jit(tx.update)
    for _ in range(3):
        updates, opt_state = update({"p": jnp.ones((2, 2))}, opt_state, params)
        sizes.append(float(-updates["p"][0, 0]))
    np.testing.assert_allclose(sizes, [0.0, 1.0, 2.0], rtol=1e-5)


def test_the_state_can_be_donated():
    tx = PAPER.make(lambda step: jnp.float32(0.3))
    params = {"a": jnp.ones((4, 8)), "decoder": {"decoder": {"scale": jnp.ones((8, 3))}}}
    opt_state = jax.jit(tx.init)(params)
    step = jax.jit(
        lambda params, opt_state, grads: tx.update(grads, opt_state, params), donate_argnums=(1,)
    )
    shapes = jax.tree.map(jnp.shape, opt_state)
    first = jax.tree.leaves(opt_state)
    for _ in range(2):
        _, opt_state = step(params, opt_state, params)
    assert jax.tree.map(jnp.shape, opt_state) == shapes
    assert any(leaf.is_deleted() for leaf in first)


# ---- scanned layers


def unscanned(flat, layers):
    """Splits T5X's stacked parameters into `layers_{i}` with joined attention kernels, written without the module."""
    result = {}
    for path, leaf in flat.items():
        if not path.startswith(("encoder/encoder/", "decoder/decoder/")):
            result[path] = leaf
            continue
        stack, _, rest = path.split("/", 2)
        for i in range(layers):
            layer = leaf[:, i]
            if layer.ndim == 3:
                layer = layer.reshape(
                    (-1, layer.shape[-1]) if "/out/" in path else (layer.shape[0], -1)
                )
            result[f"{stack}/layers_{i}/{rest}"] = layer
    return result


def scanned_params(rng, layers):
    shapes = {
        "encoder/encoder/attention/query/kernel": (12, layers, 2, 6),
        "encoder/encoder/attention/out/kernel": (2, layers, 6, 12),
        "encoder/encoder/mlp/wi_0/kernel": (12, layers, 16),
        "encoder/encoder/pre_mlp_layer_norm/scale": (12, layers),
        "decoder/decoder/relpos_bias/rel_embedding": (2, layers, 9),
        "encoder/encoder_norm/scale": (12,),
        "token_embedder/embedding": (20, 12),
    }
    keys = jax.random.split(rng, len(shapes))
    # Layers of very different size, so that clipping or scaling them together cannot pass.
    sizes = jnp.asarray([1.0, 20.0, 0.05])[:layers]
    params = {}
    for (path, shape), key in zip(sorted(shapes.items()), keys, strict=True):
        leaf = jax.random.normal(key, shape)
        if layouts.is_stacked(path):
            leaf = leaf * sizes.reshape((1, layers) + (1,) * (len(shape) - 2))
        params[path] = leaf
    return params


def test_scanned_layers_train_as_unscanned_ones():
    layers = 3
    settings = Adafactor(weight_decay_rate=1e-3, min_dim_size_to_factor=8, restored_step=1000)
    tx: Any = settings.make(lambda step: jnp.float32(0.1))
    stacked = scanned_params(jax.random.key(0), layers)
    single = unscanned(stacked, layers)
    assert len(single) == 2 + 5 * layers
    stacked_params, single_params = tree.unflatten(stacked), tree.unflatten(single)
    stacked_state, single_state = tx.init(stacked_params), tx.init(single_params)
    assert set(stacked_state) == {"unstacked", "layers_3"}
    for i in range(1, 4):
        grads = scanned_params(jax.random.key(i), layers)
        stacked_params, stacked_state = update(
            tx, stacked_params, tree.unflatten(grads), stacked_state
        )
        single_params, single_state = update(
            tx, single_params, tree.unflatten(unscanned(grads, layers)), single_state
        )
    ours = unscanned(tree.flatten(stacked_params), layers)
    expected = tree.flatten(single_params)
    assert set(ours) == set(expected)
    for path, leaf in ours.items():
        np.testing.assert_allclose(leaf, expected[path], rtol=1e-5, atol=1e-6, err_msg=path)


def test_one_clip_for_all_layers_would_give_other_numbers():
    layers = 3
    params = tree.unflatten(scanned_params(jax.random.key(0), layers))
    grads = tree.unflatten(scanned_params(jax.random.key(1), layers))
    ends = []
    tx = Adafactor().make(lambda step: jnp.float32(0.1))
    # Under another name nothing is known to be stacked.
    for name in ("encoder", "other"):
        here, change = ({name: {"encoder": x["encoder"]["encoder"]}} for x in (params, grads))
        end, _ = update(tx, here, change, tx.init(here))
        ends.append(end[name]["encoder"]["mlp"]["wi_0"]["kernel"])
    assert np.abs(ends[0] - ends[1]).max() > 0.1


def test_stacks_of_different_depth_are_kept_apart():
    tx: Any = Adafactor().make(lambda step: jnp.float32(0.1))
    params = {
        "encoder": {"encoder": {"mlp": {"kernel": jnp.ones((4, 2, 5))}}},
        "decoder": {"decoder": {"mlp": {"kernel": jnp.ones((4, 3, 5))}}},
    }
    updates, state = jax.eval_shape(lambda p: tx.update(p, tx.init(p), p), params)
    assert set(state) == {"layers_2", "layers_3"}
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize(
    ("path", "stacked"),
    [
        ("encoder/encoder/mlp/wo/kernel", True),
        ("decoder/decoder/relpos_bias/rel_embedding", True),
        ("encoder/encoder_norm/scale", False),
        ("encoder/layers_0/mlp/wo/kernel", False),
        ("decoder/logits_dense/kernel", False),
        (PROMPT_PATH, False),
    ],
)
def test_stacked_parameters_are_known_by_path(path, stacked):
    assert layouts.is_stacked(path) == stacked


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"step_offset": 1}, "restored_step"),
        ({"decay_rate": 0.0}, "decay_rate"),
        ({"clipping_threshold": 0.0}, "clipping_threshold"),
        ({"weight_decay_rate": 1.0}, "weight_decay_rate"),
    ],
)
def test_settings_that_cannot_work_are_refused(kwargs, words):
    with pytest.raises(ConfigError, match=words):
        Adafactor(**kwargs)


@pytest.mark.parametrize(("size", "norm"), [(4.0, 1.0), (0.01, 0.02)])
def test_gradients_are_clipped_by_their_norm_over_all_layers(size, norm):
    settings = Adafactor(global_norm_clip_threshold=1.0)
    tx: Any = settings.make(lambda step: jnp.float32(0.1))
    params = {"p": jnp.ones((2,)), "encoder": {"layers": {"k": jnp.ones((1, 2))}}}
    grads = jax.tree.map(lambda x: jnp.full_like(x, size), params)
    plain: Any = Adafactor().make(lambda step: jnp.float32(0.1))
    assert jax.tree.structure(tx.init(params)) == jax.tree.structure(plain.init(params))
    _, state = jax.jit(tx.update)(grads, tx.init(params), params)
    moments = [x for x in jax.tree.leaves(state) if x.size == 2]
    assert np.sqrt(sum(float(x.sum()) for x in moments)) == pytest.approx(norm, rel=1e-5)
