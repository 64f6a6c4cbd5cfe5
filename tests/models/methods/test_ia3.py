"""(IA)3 in the model: what it adds, where it acts, and that it is the same in every layout."""

import math

import jax
import numpy as np
import pytest
from flax.linen import partitioning as nn_partitioning

from prompt_tuning import tree
from prompt_tuning.errors import ConfigError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import ADDED_REGEX
from tests import both_layouts
from tests.helpers import tiny_config
from tests.models.conftest import FEATURES, max_difference

IS_ADDED = tree.match_any(ADDED_REGEX)


def _abstract(module: T5) -> tuple[dict, dict]:
    """Shapes and logical axes of all parameters by path."""
    ids = np.ones((1, 1), np.int32)
    init = lambda rng: module.init({"params": rng}, ids, ids, ids, enable_dropout=False)  # noqa: E731
    variables = jax.eval_shape(init, jax.random.key(0))
    axes = tree.flatten(nn_partitioning.get_axis_names(variables["params_axes"]))
    return tree.flatten(variables["params"]), {path: tuple(axes[path]) for path in axes}


def _factors(module: T5, seed: int = 0) -> dict[str, np.ndarray]:
    """Factors around 1 for everything that the method adds."""
    rng = np.random.default_rng(seed)
    shapes = {path: leaf.shape for path, leaf in _abstract(module)[0].items() if IS_ADDED(path)}
    return {p: rng.uniform(0.5, 1.5, shape).astype(np.float32) for p, shape in shapes.items()}


def _logits(module: T5, flat: dict, batch: dict) -> np.ndarray:
    def call(params, batch):
        features = (batch[name] for name in FEATURES)
        return module.apply({"params": params}, *features, enable_dropout=False)

    return np.asarray(jax.jit(call)(tree.unflatten(flat), batch))


def _by_hand(frozen: dict, factors: dict, inputs: tuple = ("wo",)) -> dict[str, np.ndarray]:
    """Unscanned weights with the factors in them: rows of what has its input scaled, columns of the others."""
    merged = dict(frozen)
    for path, x in factors.items():
        kernel = path.replace("ia3_scaling", "kernel")
        merged[kernel] = frozen[kernel] * (x[:, None] if path.split("/")[-2] in inputs else x[None])
    return merged


@pytest.mark.parametrize(("width", "heads", "hidden", "count"), [
    (2048, 32, 5120, 540_672),
    (4096, 64, 10240, 1_081_344),
])  # fmt: skip
def test_counts_are_t_fews(width, heads, hidden, count):
    sizes = {"emb_dim": width, "num_heads": heads, "mlp_dim": hidden, "vocab_size": 64}
    sizes |= {"num_encoder_layers": 24, "num_decoder_layers": 24, "head_dim": 64}
    config = T5Config(scan_layers=True, **sizes)
    shapes = {p: x.shape for p, x in _abstract(T5(config, method=IA3()))[0].items() if IS_ADDED(p)}
    assert sum(map(math.prod, shapes.values())) == count


def test_what_is_added_is_whole_layers_of_float32_with_names_of_axes():
    config = tiny_config(scan_layers=True, param_dtype="bfloat16")
    shapes, axes = _abstract(T5(config, method=IA3()))
    added = {path: (leaf.shape, axes[path]) for path, leaf in shapes.items() if IS_ADDED(path)}
    key, hidden = ((32, 2), ("joined_kv", "layers")), ((64, 2), ("mlp", "layers"))
    attention = ("decoder/self_attention", "decoder/encoder_decoder_attention", "encoder/attention")
    assert added == {
        f"{place.split('/')[0]}/{place}/{name}/ia3_scaling": key
        for place in attention
        for name in ("key", "value")
    } | {f"{stack}/{stack}/mlp/wo/ia3_scaling": hidden for stack in ("encoder", "decoder")}
    assert {shapes[path].dtype for path in added} == {np.dtype("float32")}


@pytest.mark.parametrize("scan_layers", [False, True])
def test_factors_are_what_weights_with_them_are(reference, scan_layers):
    plain = T5(tiny_config(dropout_rate=0.0))
    factors = _factors(T5(plain.config, method=IA3()))
    expected = _logits(plain, _by_hand(reference.frozen, factors), reference.batch)
    module = T5(tiny_config(dropout_rate=0.0, scan_layers=scan_layers), method=IA3())
    flat = {**reference.frozen, **factors}
    flat = both_layouts.to_scanned(flat) if scan_layers else flat
    logits = _logits(module, flat, reference.batch)
    real = reference.is_target
    assert max_difference(logits[real], expected[real]) <= 1e-5
    # They start where nothing is changed.
    ones = {path: np.ones_like(x) if IS_ADDED(path) else x for path, x in flat.items()}
    untuned = _logits(module, ones, reference.batch)[real]
    np.testing.assert_array_equal(
        untuned,
        _logits(T5(module.config), _without(flat), reference.batch)[real],
    )
    assert max_difference(untuned, logits[real]) > 0.01


def _without(flat: dict) -> dict:
    return {path: x for path, x in flat.items() if not IS_ADDED(path)}


def test_any_linear_map_can_be_scaled_at_either_end(reference):
    method = IA3(outputs=("query", "wi_0"), inputs=("wi_1", "out"))
    module = T5(tiny_config(dropout_rate=0.0), method=method)
    factors = _factors(module)
    assert {p.split("/")[-2]: x.shape for p, x in factors.items()} == dict(
        query=(32,), wi_0=(64,), wi_1=(32,), out=(32,)
    )
    real = reference.is_target
    by_hand = _by_hand(reference.frozen, factors, inputs=method.inputs)
    expected = _logits(T5(module.config), by_hand, reference.batch)[real]
    logits = _logits(module, {**reference.frozen, **factors}, reference.batch)[real]
    assert max_difference(logits, expected) <= 1e-5


def test_a_map_that_the_model_has_not_is_refused():
    config = tiny_config(mlp_activations=("relu",))
    for name, is_right in (("wi", True), ("wo", True), ("wi_1", False)):
        method = IA3(inputs=(name,))
        added = list(filter(IS_ADDED, _abstract(T5(config, method=method))[0]))
        if is_right:
            method.check(added)
            continue
        with pytest.raises(ConfigError, match="leave 'wi_1' out of methods.IA3.inputs"):
            method.check(added)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"inputs": ("wo", "key")}, "take 'key' out of one of them"),
        ({"inputs": (), "outputs": ()}, "at least one"),
        ({"outputs": ("keys",)}, "methods.IA3.outputs"),
    ],
)
def test_settings_that_scale_nothing_or_twice_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        IA3(**settings)
