"""LoRA's files: PEFT's names and settings read as places, written as PEFT reads them, and merged in parts."""

import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.method_files.merged import MergedSource
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.errors import CheckpointError
from tests import both_layouts
from tests.checkpoints.method_files.test_merged import HEADS, source_of, weights_and_factors

CONFIG = {
    "peft_type": "LORA",
    "task_type": "SEQ_2_SEQ_LM",
    "r": 2,
    "lora_alpha": 6,
    "target_modules": ["q", "k", "wo"],
    "lora_dropout": 0.1,
}
ATTENTION = {
    "encoder.block.{}.layer.0.SelfAttention": "encoder/layers_{}/attention",
    "decoder.block.{}.layer.0.SelfAttention": "decoder/layers_{}/self_attention",
    "decoder.block.{}.layer.1.EncDecAttention": "decoder/layers_{}/encoder_decoder_attention",
}


def _tensors(ranks, ending="", prefix="base_model.model."):
    """Matrices of modules, by PEFT's names: module -> rank."""
    rng = np.random.default_rng(0)
    out = {}
    for module, rank in ranks.items():
        a, b = f"{prefix}{module}.lora_A{ending}.weight", f"{prefix}{module}.lora_B{ending}.weight"
        out[a] = rng.normal(size=(rank, 5)).astype(np.float32)
        out[b] = rng.normal(size=(4, rank)).astype(np.float32)
    return out


def _queries(rank=2, layers=2):
    return {f"{name.format(i)}.q": rank for name in ATTENTION for i in range(layers)}


def _adapter(folder, tensors, **config):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


@pytest.mark.parametrize(
    ("ending", "prefix"), [("", "base_model.model."), (".default", "base_model.model.")]
)
def test_places_are_what_their_modules_are_called(tmp_path, ending, prefix):
    ranks = {**_queries(), "decoder.block.0.layer.2.DenseReluDense.wo": 3}
    tensors = _tensors(ranks, ending, prefix)
    found = read_set(_adapter(tmp_path / "a", tensors, rank_pattern={"wo": 3}))
    assert found.info[METHOD] == {
        "name": "LoRA",
        "rank": 2,
        "alpha": 6,
        "dropout": 0.1,
        "targets": [".*/query", "decoder/mlp/wo"],
        "rank_stabilised": False,
        "rank_pattern": [[".*/wo", 3]],
        "alpha_pattern": [],
    }
    assert found.absent is None and len(found.params) == 2 * len(ranks)
    b = tensors[f"{prefix}decoder.block.1.layer.1.EncDecAttention.q.lora_B{ending}.weight"]
    path = "decoder/layers_1/encoder_decoder_attention/query/lora_b"
    np.testing.assert_array_equal(found.params[path], b.T)
    write_set(tmp_path / "out", found, file_format="peft", base_model="t5-small")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {"wo": 3} and config["r"] == 2 and config["lora_alpha"] == 6
    assert config["target_modules"] == (r".*\.q|decoder\.block\.\d+\.layer\.2\.DenseReluDense\.wo")
    again = read_set(tmp_path / "out")
    assert again.info[METHOD] == found.info[METHOD] and again.absent == 0
    for path, x in found.params.items():
        np.testing.assert_array_equal(again.params[path], x)


def test_layers_of_other_ranks_and_scales_become_the_same_function(tmp_path):
    one, all_ = "encoder.block.0.layer.0.SelfAttention.q", _queries()
    tensors = _tensors({**all_, one: 1})
    settings = {"rank_pattern": {one: 1}, "alpha_pattern": {one: 9}, "target_modules": ".*q"}
    found = read_set(_adapter(tmp_path / "a", tensors, **settings))
    assert found.info[METHOD]["rank_pattern"] == found.info[METHOD]["alpha_pattern"] == []
    assert found.absent == 0.0
    pair = [found.params[f"encoder/layers_0/attention/query/lora_{x}"] for x in "ab"]
    expected = [tensors[f"base_model.model.{one}.lora_{x}.weight"].T for x in "AB"]
    assert [x.shape for x in pair] == [(5, 2), (2, 4)]
    np.testing.assert_allclose(6 / 2 * pair[0] @ pair[1], 9 / 1 * expected[0] @ expected[1], 1e-6)


Q = "base_model.model.encoder.block.0.layer.0.SelfAttention.q"


@pytest.mark.parametrize(
    ("tensors", "config", "text"),
    [
        ({}, {"use_dora": True}, "more than LoRA: use_dora"),
        ({}, {"modules_to_save": ["lm_head"]}, "more than LoRA: modules_to_save"),
        ({}, {"init_lora_weights": "pissa_niter_4"}, "more than LoRA: init_lora_weights"),
        ({}, {"lora_alpha": None}, "lora_alpha that is none: got 'lora_alpha: None'"),
        ({}, {"alpha_pattern": {"q": -1}}, "alpha_pattern that is none: got 'q: -1'"),
        ({}, {"rank_pattern": [2]}, "rank_pattern that is none"),
        ({}, {"r": 3}, "rank 2 at encoder.block.0.layer.0.SelfAttention.q"),
        ({f"{Q}.lora_magnitude_vector": np.ones(4)}, {}, "lora_magnitude_vector"),
        ({"base_model.model.lm_head.lora_A.weight": np.ones((2, 3))}, {}, "lm_head.lora_A"),
        ({f"{Q}.lora_B.weight": np.ones((4, 3))}, {}, "no pair of matrices"),
    ],
)
def test_what_lora_here_has_not_is_refused_by_name(tmp_path, tensors, config, text):
    tensors = {name: x.astype(np.float32) for name, x in tensors.items()}
    whole = {**_tensors({Q.removeprefix("base_model.model."): 2}), **tensors}
    with pytest.raises(CheckpointError, match=text):
        read_set(_adapter(tmp_path / "a", whole, **config))


@pytest.mark.parametrize("scanned", [False, True])
def test_products_are_added_in_either_layout_and_in_parts(scanned):
    weights, _, _ = weights_and_factors()
    rng, params, expected = np.random.default_rng(1), {}, dict(weights)
    for path, kernel in weights.items():
        place = path.removesuffix("/kernel")
        if place.endswith(("query", "out", "wo")):
            a = params[f"{place}/lora_a"] = rng.normal(size=(len(kernel), 2)).astype(np.float32)
            b = params[f"{place}/lora_b"] = rng.normal(size=(2, kernel.shape[1])).astype(np.float32)
            expected[path] = kernel + (5 if place.endswith("wo") else 3) / 2 * a @ b
    settings = {"name": "LoRA", "alpha": 3, "rank_stabilised": False}
    settings["alpha_pattern"] = [["encoder/mlp/wo", 5]]
    if scanned:
        weights = both_layouts.to_scanned(weights, num_heads=HEADS)
        expected = both_layouts.to_scanned(expected, num_heads=HEADS)
    source = MergedSource(source_of(weights), MethodSet(params, {METHOD: settings}))
    for path, x in expected.items():
        np.testing.assert_allclose(source.read(path), x, rtol=1e-5, atol=1e-6)
        part = (slice(1, 3), *[slice(0, 2)] * (x.ndim - 1))
        np.testing.assert_allclose(source.read(path, part), x[part], rtol=1e-5, atol=1e-6)
    params["encoder/layers_0/mlp/wo/lora_a"] = np.ones((9, 2), np.float32)
    with pytest.raises(CheckpointError, match=r"\[9, 2\] times \[2, 5\]"):
        MergedSource(source_of(weights), MethodSet(params, {METHOD: settings}))
