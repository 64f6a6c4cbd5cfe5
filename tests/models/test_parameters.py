"""Names, shapes, counts, logical axes and initial values of the parameters."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import partitioning as nn_partitioning

from prompt_tuning import tree
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.initializers import ClassLabels
from tests import both_layouts
from tests.helpers import GOLDEN, tiny_config
from tests.models.conftest import make_model, param_shapes

# Layers of each stack, heads, width, mlp width, parameters (Lester et al. 2021, Table 4, less the prompt).
SIZES = {
    "small": (8, 6, 512, 1024, 76_961_152),
    "base": (12, 12, 768, 2048, 247_577_856),
    "large": (24, 16, 1024, 2816, 783_150_080),
    "xl": (24, 32, 2048, 5120, 2_849_757_184),
    "xxl": (24, 64, 4096, 10240, 11_135_332_352),
}


def _config(size: str, **overrides) -> T5Config:
    num_layers, num_heads, emb_dim, mlp_dim, _ = SIZES[size]
    return T5Config(
        vocab_size=32128,
        emb_dim=emb_dim,
        num_heads=num_heads,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
        head_dim=64,
        mlp_dim=mlp_dim,
        **overrides,
    )


def _count(shapes) -> int:
    return sum(math.prod(leaf.shape) for leaf in shapes.values())


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_papers_and_scanned_ones_repeat_the_position_tables(size):
    """T5X's scanned layout has a relative position table [N, 32] in each layer instead of one per stack."""
    num_layers, num_heads, *_, total = SIZES[size]
    repeated = 2 * (num_layers - 1) * num_heads * 32
    scanned = param_shapes(_config(size, scan_layers=True))
    assert _count(scanned) == total + repeated
    # As the unscanned layout holds them, the numbers agree.
    unscanned = jax.eval_shape(both_layouts.to_unscanned, scanned)
    assert _count(unscanned) == total
    if size == "small":  # tracing each layer of larger ones by itself takes seconds
        assert unscanned == param_shapes(_config(size))


@pytest.mark.parametrize(
    ("size", "length", "count"),
    [("small", 1, 512), ("small", 100, 51_200), ("xxl", 100, 409_600), ("xxl", 150, 614_400)],
)
def test_prompt_counts_are_the_papers(size, length, count):
    emb_dim = SIZES[size][2]
    config = tiny_config(emb_dim=emb_dim, scan_layers=True)
    shapes = param_shapes(config, PromptConfig(length))
    assert shapes[PROMPT_PATH].shape == (length, emb_dim)
    assert math.prod(shapes[PROMPT_PATH].shape) == count


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_names_and_shapes_are_t5x(reference, param_dtype):
    config = tiny_config(param_dtype=param_dtype)
    shapes = param_shapes(config, PromptConfig(6))
    assert {p: leaf.shape for p, leaf in shapes.items()} == {
        p: leaf.shape for p, leaf in reference.params.items()
    }
    assert len(shapes) == 53
    assert shapes.pop(PROMPT_PATH).dtype == jnp.float32
    assert {leaf.dtype for leaf in shapes.values()} == {jnp.dtype(param_dtype)}


def test_scanned_names_and_shapes_are_t5x(reference):
    with (GOLDEN / "scanned_layout.json").open() as file:
        stacked = {path: tuple(entry["shape"]) for path, entry in json.load(file)["params"].items()}
    shapes = {
        path: leaf.shape for path, leaf in param_shapes(tiny_config(scan_layers=True)).items()
    }
    rest = {
        p: leaf.shape
        for p, leaf in reference.frozen.items()
        if "layers_" not in p and "relpos" not in p
    }
    assert shapes == {**stacked, **rest}
    assert len(stacked) == 25 and len(rest) == 4


def _axes(model):
    ids = np.ones((1, 1), np.int32)
    variables = jax.eval_shape(
        lambda rng: model.init({"params": rng}, ids, ids, ids, enable_dropout=False),
        jax.random.key(0),
    )
    axes = tree.flatten(nn_partitioning.get_axis_names(variables["params_axes"]))
    shapes = tree.flatten(variables["params"])
    assert set(axes) == set(shapes)
    assert all(len(axes[path]) == len(shapes[path].shape) for path in shapes)
    return {path: tuple(names) for path, names in axes.items()}


def test_logical_axes_are_t5x():
    axes = _axes(make_model())
    assert axes[PROMPT_PATH] == ("prompt", "prompt_embed")
    assert axes["token_embedder/embedding"] == ("vocab", "embed")
    assert axes["decoder/logits_dense/kernel"] == ("embed", "vocab")
    assert axes["encoder/relpos_bias/rel_embedding"] == ("heads", "relpos_buckets")
    layer = "decoder/layers_1/"
    assert axes[layer + "encoder_decoder_attention/query/kernel"] == ("embed", "joined_kv")
    assert axes[layer + "self_attention/out/kernel"] == ("joined_kv", "embed")
    assert axes[layer + "mlp/wi_0/kernel"] == ("embed", "mlp")
    assert axes[layer + "mlp/wo/kernel"] == ("mlp", "embed")
    assert axes[layer + "pre_mlp_layer_norm/scale"] == ("embed",)


def test_scanned_logical_axes_are_t5x():
    axes = _axes(make_model(scan_layers=True))
    layer = "encoder/encoder/"
    assert axes[layer + "attention/query/kernel"] == ("embed", "layers", "heads", "kv")
    assert axes[layer + "attention/out/kernel"] == ("heads", "layers", "kv", "embed")
    assert axes[layer + "mlp/wi_1/kernel"] == ("embed", "layers", "mlp")
    assert axes[layer + "pre_mlp_layer_norm/scale"] == ("embed", "layers")
    assert axes[layer + "relpos_bias/rel_embedding"] == ("heads", "layers", "relpos_buckets")
    assert axes[PROMPT_PATH] == ("prompt", "prompt_embed")


@pytest.mark.parametrize("scan_layers", [False, True])
def test_initial_values_have_t5x_scales(scan_layers):
    """Sizes are such that no two fan-ins agree."""
    sizes = {"vocab_size": 500, "emb_dim": 128, "num_heads": 4, "head_dim": 16, "mlp_dim": 256}
    layers = {"num_encoder_layers": 2 if scan_layers else 1, "num_decoder_layers": 1}
    config = tiny_config(**sizes, **layers, scan_layers=scan_layers)
    ids = np.ones((1, 1), np.int32)
    layer = "encoder/encoder/" if scan_layers else "encoder/layers_0/"
    table = (
        "encoder/encoder/relpos_bias/rel_embedding"
        if scan_layers
        else "encoder/relpos_bias/rel_embedding"
    )
    expected = {
        "token_embedder/embedding": 1.0,
        "decoder/logits_dense/kernel": 128**-0.5,
        layer + "attention/query/kernel": (128 * 16) ** -0.5,
        layer + "attention/key/kernel": 128**-0.5,
        layer + "attention/value/kernel": 128**-0.5,
        layer + "attention/out/kernel": (4 * 16) ** -0.5,
        layer + "mlp/wi_0/kernel": 128**-0.5,
        layer + "mlp/wo/kernel": 256**-0.5,
    }

    @jax.jit
    def init(rng):
        # What is not compared is not computed.
        params = T5(config).init({"params": rng}, ids, ids, ids, enable_dropout=False)["params"]
        names = (*expected, table, "encoder/encoder_norm/scale")
        return {path: x for path, x in tree.flatten(params).items() if path in names}

    params = init(jax.random.key(0))
    for path, std in expected.items():
        assert float(params[path].std()) == pytest.approx(std, rel=0.05), path
        assert float(params[path].mean()) == pytest.approx(0.0, abs=0.05 * std), path
    limit = (3 / ((4 + 32) / 2)) ** 0.5
    assert 0.9 * limit < float(jnp.abs(params[table]).max()) <= limit
    assert (np.asarray(params["encoder/encoder_norm/scale"]) == 1).all()
    kernel = params[layer + "mlp/wi_0/kernel"]
    if scan_layers:
        assert not np.array_equal(kernel[:, 0], kernel[:, 1])


def _initial_prompt(prompt: PromptConfig) -> np.ndarray:
    ids = np.ones((1, 1), np.int32)
    model = T5(tiny_config(num_encoder_layers=1, num_decoder_layers=1), prompt)

    @jax.jit
    def init(rng):
        params = model.init({"params": rng}, ids, ids, ids, enable_dropout=False)["params"]
        return tree.flatten(params)[PROMPT_PATH]

    return np.asarray(init(jax.random.key(0)))


def test_prompts_that_need_weights_start_as_a_placeholder():
    for prompt in (PromptConfig(9), PromptConfig(9, ClassLabels(("True", "False")))):
        values = _initial_prompt(prompt)
        assert values.min() < -0.4 and values.max() > 0.4 and np.abs(values).max() <= 0.5
    given = PromptConfig(9, lambda rng, shape: jnp.full(shape, 3.0))
    assert (_initial_prompt(given) == 3).all()
