"""LoRA in the model: what it adds, where it acts, over which weights, and which settings are refused."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.layers import Dense
from prompt_tuning.models.methods.lora import LoRA
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import int8
from prompt_tuning.params.names import is_added, place_of
from tests.helpers import tiny_config
from tests.models.conftest import FEATURES, max_difference

ALL = LoRA(
    targets=(".*",),
    rank=3,
    alpha=5,
    rank_stabilised=True,
    rank_pattern=((".*/wo", 2),),
    alpha_pattern=(("encoder/.*/wo", 4),),
)


def _variables(module: T5) -> Any:
    ids = np.ones((1, 1), np.int32)
    return module.init({"params": jax.random.key(0)}, ids, ids, ids, enable_dropout=False)


def _shapes(module: T5) -> dict[str, tuple[int, ...]]:
    params = jax.eval_shape(functools.partial(_variables, module))["params"]
    return {path: leaf.shape for path, leaf in tree.flatten(params).items()}


def _matrices(module: T5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(0, 0.1, shape).astype(np.float32)  # noqa: E731
    return {path: draw(shape) for path, shape in _shapes(module).items() if is_added(path)}


def _logits(module: T5, flat: dict, batch: dict) -> np.ndarray:
    def call(params, batch):
        features = (batch[name] for name in FEATURES)
        return module.apply({"params": params}, *features, enable_dropout=False)

    return np.asarray(jax.jit(call)(tree.unflatten(flat), batch), np.float32)


def _by_hand(frozen: dict, matrices: dict) -> dict[str, np.ndarray]:
    """Unscanned weights with the products of `ALL` in them."""
    merged = dict(frozen)
    for path, a in matrices.items():
        if path.endswith("/lora_a"):
            kernel, b = path.replace("lora_a", "kernel"), matrices[path.replace("lora_a", "lora_b")]
            rank = 2 if "/wo/" in path else 3
            alpha = 4 if place_of(path).startswith("encoder/mlp/wo") else 5
            merged[kernel] = frozen[kernel] + alpha / math.sqrt(rank) * a @ b
    return merged


def test_it_is_what_weights_with_its_products_are(reference):
    plain = T5(tiny_config(dropout_rate=0.0))
    module = plain.clone(method=ALL)
    matrices = _matrices(module)
    assert matrices["encoder/layers_0/attention/query/lora_a"].shape == (32, 3)
    assert matrices["decoder/layers_1/mlp/wo/lora_b"].shape == (2, 32)
    expected = _logits(plain, _by_hand(reference.frozen, matrices), reference.batch)
    logits = _logits(module, {**reference.frozen, **matrices}, reference.batch)
    real = reference.is_target
    assert max_difference(logits[real], expected[real]) <= 1e-5
    # With B at zero, where it starts, nothing is changed.
    start = {path: x * (not path.endswith("lora_b")) for path, x in matrices.items()}
    np.testing.assert_array_equal(
        _logits(module, {**reference.frozen, **start}, reference.batch)[real],
        _logits(plain, reference.frozen, reference.batch)[real],
    )


def test_its_start_is_pefts():
    dense = Dense(tiny_config(), (8,), ("embed", "mlp"), method=LoRA(targets=(".*",)))
    variables: Any = dense.init(jax.random.key(0), np.ones((1, 1, 64), np.float32))
    x = variables["params"]
    assert 0.9 / 8 < np.abs(x["lora_a"]).max() <= 1 / 8 and abs(x["lora_a"].mean()) < 0.01
    assert x["lora_b"].shape == (8, 8) and not np.any(x["lora_b"])


@pytest.mark.parametrize("held", ["bfloat16", "int8"])
def test_over_narrow_weights_it_adds_the_same(held):
    """One linear map, whose kernel is held as a run holds it, with and without LoRA."""
    rng = np.random.default_rng(0)
    kernel = {"kernel": jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)}
    if held == "int8":
        kernel = int8.hold(kernel | {"x/kernel": kernel["kernel"]}, held)
        kernel = {path.removeprefix("x/"): x for path, x in kernel.items() if path != "kernel"}
    else:
        kernel = {"kernel": kernel["kernel"].astype(held)}
    config = tiny_config(dtype="bfloat16")
    dense = functools.partial(Dense, config, (8,), ("embed", "mlp"), name="key")
    x = jnp.asarray(rng.normal(size=(2, 5, 16)), jnp.bfloat16)
    a, b = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((16, 3), (3, 8)))
    method = LoRA(rank=3, alpha=3, targets=(".*",))
    plain = dense().apply({"params": kernel}, x)
    tuned: Any = dense(method=method).apply({"params": {**kernel, "lora_a": a, "lora_b": b}}, x)
    assert tuned.dtype == jnp.bfloat16
    # The product is rounded once, with the sum.
    expected = np.asarray(plain, np.float32) + np.asarray(x, np.float32) @ np.asarray(a) @ b
    np.testing.assert_allclose(np.asarray(tuned, np.float32), expected, rtol=2**-8, atol=1e-5)


def test_dropout_is_of_its_own_input_and_the_same_at_all_positions():
    dense = Dense(
        tiny_config(),
        (64,),
        ("embed", "mlp"),
        name="key",
        method=LoRA(rank=64, alpha=64, targets=(".*",), dropout=0.25),
    )
    zero, one = np.zeros((64, 64), np.float32), np.eye(64, dtype=np.float32)
    params = {"params": {"kernel": zero, "lora_a": one, "lora_b": one}}
    x = np.ones((3, 2, 64), np.float32)
    np.testing.assert_array_equal(dense.apply(params, x), x)
    dropped = np.asarray(dense.apply(params, x, rngs={"dropout": jax.random.key(0)}))
    np.testing.assert_array_equal(dropped[:, 0], dropped[:, 1])
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.75)}
    assert 0.1 < (dropped == 0).mean() < 0.4 and not np.array_equal(dropped[0], dropped[1])


def test_its_count_is_t_fews():
    """T-Few's LoRA of rank 4 on every linear map of T0 3B, with the norms, which it trains too."""
    sizes: dict[str, Any] = {
        "emb_dim": 2048,
        "num_heads": 32,
        "head_dim": 64,
        "mlp_dim": 5120,
        "vocab_size": 64,
    }
    config = T5Config(
        scan_layers=True, num_encoder_layers=24, num_decoder_layers=24, dtype="float32", **sizes
    )
    shapes = _shapes(T5(config, method=LoRA(rank=4, alpha=1, targets=(".*",))))
    added = {path: shape for path, shape in shapes.items() if is_added(path)}
    norms = {path: shape for path, shape in shapes.items() if path.endswith("_norm/scale")}
    assert sum(map(math.prod, added.values())) == 8_847_360
    assert sum(map(math.prod, {**added, **norms}.values())) == 9_097_216


def test_the_rank_is_whole_and_the_other_axis_lies_as_the_kernels_does():
    module = T5(tiny_config(scan_layers=True), method=LoRA(targets=(".*/(out|wo)",)))
    axes = EncoderDecoderModel(module, None, None).param_axes
    of = lambda place: [axes[f"{place}/lora_{x}"] for x in "ab"]  # noqa: E731
    assert of("decoder/decoder/self_attention/out") == [
        ("joined_kv", "layers", None),
        (None, "layers", "embed"),
    ]
    assert of("encoder/encoder/mlp/wo")[0] == ("mlp", "layers", None)


def test_expressions_that_match_nothing_are_refused():
    added = [p for p in _shapes(T5(tiny_config(), method=ALL)) if is_added(p)]
    each: tuple[dict[str, Any], ...] = (
        {"targets": (".*/query", ".*/wi")},
        {"targets": ("query",)},
        {"rank_pattern": ((".*/wi", 2),)},
        {"alpha_pattern": (("decoder/mlp", 2.0),)},
    )
    for settings in each:
        (field,) = settings
        method = LoRA(**settings)
        kept = [path for path in added if method.at(place_of(path).rpartition("/")[0])]
        with pytest.raises(ConfigError, match=rf"methods.LoRA.{field} matches no"):
            method.check(kept)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rank": 0}, "methods.LoRA.rank is not"),
        ({"rank_pattern": ((".*/wo", 0),)}, "rank_pattern's value for '.*/wo'"),
        ({"alpha": -1.0}, "methods.LoRA.alpha is out"),
        ({"alpha_pattern": ((".*/wo", -2.0),)}, "alpha_pattern's value"),
        ({"dropout": 1.0}, "methods.LoRA.dropout"),
        ({"targets": ()}, "targets names nothing"),
        ({"targets": None}, "methods.LoRA.targets is no list of texts: got None"),
        ({"targets": ("*.query",)}, "no regular expression"),
        ({"rank_pattern": {"*": 2}}, "pairs"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        LoRA(**settings)


def test_what_other_words_say_alike_is_no_difference():
    paths = [p for p in _shapes(T5(tiny_config(), method=ALL)) if is_added(p)]
    ours = LoRA(targets=("(encoder|decoder)/.*/(query|value)",))
    theirs = LoRA(dropout=0.1, rank_pattern=((".*/query", 4),), alpha_pattern=((".*/query", 4),))
    assert not ours.differences(LoRA(dropout=0.1).describe(), paths)
    assert set(ours.differences(theirs.describe(), paths)) == {
        f"methods.LoRA.{field}" for field in ("targets", "rank_pattern", "alpha_pattern")
    }
    assert ours.differences({"name": "IA3", "inputs": []}, paths) == {"name": "IA3"}
