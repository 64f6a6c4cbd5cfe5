"""Prefixes in PEFT's form: which rows it reads for which layer, and what has no such form."""

import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.method_files.folded import as_used
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import is_there, read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.errors import CheckpointError, ConfigError

LENGTH, WIDTH = 2, 4
SETTINGS = {"name": "Prefix", "length": LENGTH, "places": ["decoder"], "hidden": None}


def _adapter(folder, pairs, **changes):
    """An adapter whose rows are filled with their numbers."""
    folder.mkdir()
    rows = np.repeat(np.arange(2 * pairs, dtype=np.float32), WIDTH)
    tensors = {"prompt_embeddings": np.stack([rows] * LENGTH)}
    config = {"peft_type": "PREFIX_TUNING", "task_type": "SEQ_2_SEQ_LM", "num_layers": pairs}
    config |= {"num_virtual_tokens": LENGTH, "num_attention_heads": 2, "token_dim": WIDTH}
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


# Of each layer the row of its keys; with an even number layers share, with an odd one each has its own.
@pytest.mark.parametrize(("pairs", "rows"), [(2, [0, 0]), (4, [0, 4, 0, 4]), (3, [0, 4, 2])])
def test_rows_are_those_that_peft_takes(tmp_path, pairs, rows):
    found = read_set(_adapter(tmp_path / "adapter", pairs))
    assert is_there(tmp_path / "adapter")
    assert found.info[METHOD] == SETTINGS
    assert len(found.params) == 2 * pairs
    for layer, row in enumerate(rows):
        path = f"decoder/layers_{layer}/self_attention/prefix_"
        for kind, number in (("key", row), ("value", row + 1)):
            x = found.params[path + kind]
            assert x.shape == (LENGTH, WIDTH) and (x == number).all()


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_every_prefix_of_the_decoder_is_written_so_that_it_is_read(tmp_path, layers):
    rng = np.random.default_rng(0)
    params = {
        f"decoder/layers_{layer}/self_attention/prefix_{kind}": rng.normal(
            size=(LENGTH, WIDTH)
        ).astype(np.float32)
        for layer in range(layers)
        for kind in ("key", "value")
    }
    info = {METHOD: SETTINGS, "model": {"num_heads": 2}}
    write_set(tmp_path / "adapter", MethodSet(params, info), file_format="peft")
    found = read_set(tmp_path / "adapter")
    assert found.info[METHOD] == SETTINGS and sorted(found.params) == sorted(params)
    for path, x in params.items():
        np.testing.assert_array_equal(found.params[path], x)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["num_layers"] == layers + 1 - layers % 2 and config["num_attention_heads"] == 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"token_dim": 3}, "contradicts its own adapter_config.json"),
        ({"num_layers": None}, "contradicts its own"),
        ({"num_transformer_submodules": 1}, "nothing useful for a T5"),
        ({"task_type": "CAUSAL_LM"}, "another kind of model"),
    ],
)
def test_adapters_that_mean_something_else_are_refused(tmp_path, changes, text):
    with pytest.raises(CheckpointError, match=text):
        read_set(_adapter(tmp_path / "adapter", 2, **changes))


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({METHOD: {**SETTINGS, "places": ["encoder", "decoder"]}}, "for the decoder's self-att"),
        ({METHOD: SETTINGS}, "The number of heads"),
    ],
)
def test_what_peft_has_no_form_for_is_refused(tmp_path, info, text):
    params = {"decoder/layers_0/self_attention/prefix_key": np.ones((LENGTH, WIDTH), np.float32)}
    with pytest.raises(ConfigError, match=text):
        write_set(tmp_path / "adapter", MethodSet(params, info), file_format="peft")


def test_what_only_training_needs_is_folded_and_all_else_left():
    rng = np.random.default_rng(0)
    shapes = {"embedding": (LENGTH, 5), "kernel": (5, 3), "bias": (3,)}
    arrays = {f"encoder/prefix_encoder_{name}": shape for name, shape in shapes.items()}
    scanned = "encoder/encoder/attention/prefix_key_"
    arrays |= {f"{scanned}kernel": (3, 2, WIDTH), f"{scanned}bias": (WIDTH, 2), "encoder/x": (2,)}
    arrays = {path: rng.normal(size=shape).astype(np.float32) for path, shape in arrays.items()}
    method = {**SETTINGS, "places": ["encoder"], "hidden": 3}
    used, info = as_used(arrays, {METHOD: method, "step": 4})
    assert info == {METHOD: {**method, "hidden": None}, "step": 4}
    embedding, kernel, bias = (arrays[f"encoder/prefix_encoder_{name}"] for name in shapes)
    features = np.tanh(embedding @ kernel + bias)
    assert len(used) == 3 and used.pop("encoder/x") is arrays["encoder/x"]
    for layer in (0, 1):
        expected = (
            features @ arrays[f"{scanned}kernel"][:, layer] + arrays[f"{scanned}bias"][:, layer]
        )
        got = used[f"encoder/layers_{layer}/attention/prefix_key"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
