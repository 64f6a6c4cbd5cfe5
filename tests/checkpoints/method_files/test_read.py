"""Files of methods: what is read, in which form, and what is refused by name."""

import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.formats import huggingface
from prompt_tuning.checkpoints.method_files.method_set import METHOD, MethodSet
from prompt_tuning.checkpoints.method_files.read import is_there, read_set
from prompt_tuning.checkpoints.method_files.write import write_set
from prompt_tuning.checkpoints.prompt_files import write as prompt_writer
from prompt_tuning.errors import CheckpointError
from tests.helpers import SHARED, requires_shared

SETTINGS = {"name": "IA3", "outputs": ["key"], "inputs": ["wo"]}
PARAMS = {
    "decoder/layers_0/encoder_decoder_attention/key/ia3_scaling": np.array([1, 2, 3], np.float32),
    "decoder/layers_0/mlp/wo/ia3_scaling": np.array([0.5, 1.5], np.float32),
}


@pytest.mark.parametrize("target", ["set.safetensors", "adapter"])
def test_what_is_written_is_read(tmp_path, target):
    form = "peft" if target == "adapter" else "safetensors"
    write_set(tmp_path / target, MethodSet(PARAMS, {METHOD: SETTINGS, "step": 3}), file_format=form)
    found = read_set(tmp_path / target)
    assert is_there(tmp_path / target)
    assert found.info[METHOD] == SETTINGS and found.info["step"] == 3 and found.absent is None
    assert sorted(found.params) == sorted(PARAMS)
    for path, x in PARAMS.items():
        np.testing.assert_array_equal(found.params[path], x)


def test_metrics_are_added_to_what_a_run_saved(tmp_path):
    stacked = {"encoder/encoder/mlp/wo/ia3_scaling": np.array([[1, 2], [3, 4], [5, 6]], np.float32)}
    prompt_writer.save_prompts(tmp_path, 7, stacked, {METHOD: SETTINGS})
    prompt_writer.update_info(tmp_path, 7, {"metrics": {"rte": 1}})
    found = read_set(tmp_path)
    assert found.info["metrics"] == {"rte": 1} and found.info["step"] == 7
    np.testing.assert_array_equal(found.params["encoder/layers_1/mlp/wo/ia3_scaling"], [2, 4, 6])
    assert len(found.params) == 2


def test_names_of_maps_go_both_ways():
    settings = {
        "mlp_activations": ("gelu", "linear"),
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
        "relative_bias_per_layer": False,
    }
    compared = 0
    for ours, theirs in huggingface.layer_names(settings):
        if not ours.endswith("/kernel"):
            continue
        compared += 1
        module, name = ours.removesuffix("/kernel"), theirs.removesuffix(".weight")
        assert huggingface.module_there(module) == name
        assert huggingface.module_here(name) == module
    assert compared == 2 * 7 + 11
    for name in (
        "encoder.block.0.layer.1.EncDecAttention.k",
        "encoder.block.0.layer.0.k",
        "shared",
    ):
        assert huggingface.module_here(name) is None


def _tensors(tmp_path, name, tensors):
    safetensors.numpy.save_file(tensors, tmp_path / name)
    return tmp_path / name


def _adapter(tmp_path, tensors):
    folder = tmp_path / "adapter"
    folder.mkdir()
    _tensors(folder, "adapter_model.safetensors", tensors)
    config = {"peft_type": "IA3", "task_type": "SEQ_2_SEQ_LM", "target_modules": ["k"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_output_of_wi_1_is_the_input_of_wo_where_that_is_free(tmp_path):
    """Widths are equal, so that no shape would tell them apart."""
    there = "base_model.model.encoder.block.0.layer.1.DenseReluDense.{}.ia3_l"
    here, values = "encoder/layers_0/mlp/{}/ia3_scaling", {"wi_1": [2, 3], "wo": [5, 7]}
    tensors = {there.format(name): np.array(x, np.float32)[:, None] for name, x in values.items()}
    found = read_set(_adapter(tmp_path, tensors))
    assert found.info[METHOD] == {"name": "IA3", "outputs": ["wi_1", "wo"], "inputs": []}
    for name, x in values.items():
        np.testing.assert_array_equal(found.params[here.format(name)], x)
    _tensors(
        tmp_path,
        "adapter/adapter_model.safetensors",
        {there.format("wi_1"): tensors[there.format("wi_1")]},
    )
    found = read_set(tmp_path / "adapter")
    np.testing.assert_array_equal(found.params[here.format("wo")], values["wi_1"])


K = "base_model.model.encoder.block.{}.layer.0.SelfAttention.k.ia3_l"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p / "missing", "No file of a method"),
        (lambda p: _tensors(p, "p.safetensors", {"prompt": np.ones((2, 3), np.float32)}), "prompt"),
        (
            lambda p: _tensors(
                p, "n.safetensors", {"a.ia3_scaling": np.full(1, np.nan, np.float32)}
            ),
            "finite",
        ),
        (lambda p: _adapter(p, {"lm_head.weight": np.ones((2, 3), np.float32)}), "lm_head.weight"),
        (lambda p: _adapter(p, {K.format(0): np.ones((2, 3), np.float32)}), r"k.ia3_l \[2, 3\]"),
        (
            lambda p: _adapter(
                p,
                {
                    K.format(0): np.ones((2, 1), np.float32),
                    K.format(1): np.ones((1, 2), np.float32),
                },
            ),
            r"\['key'\] scaled at both ends",
        ),
    ],
)
def test_what_is_no_set_of_a_method_is_refused(tmp_path, make, text):
    with pytest.raises(CheckpointError, match=text):
        read_set(make(tmp_path))


@requires_shared
def test_t_fews_vectors_are_read():
    pytest.importorskip("torch", reason="PyTorch comes with the extra [hf]")
    assert SHARED is not None
    path = SHARED / "golden" / "t0" / "t03b_ia3_finish.pt"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found = read_set(path)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert len(found.params) == facts["num_tensors"] == 192
    assert sum(x.size for x in found.params.values()) == facts["num_parameters"] == 540_672
    theirs = facts["tensors"]["encoder.block.0.layer.1.DenseReluDense.wi_1.multi_lora_b"]
    ours = found.params["encoder/layers_0/mlp/wo/ia3_scaling"]
    assert ours.astype(np.float64).mean() == pytest.approx(theirs["mean"], rel=1e-9)
    assert found.info[METHOD]["outputs"] == ["key", "value"]
