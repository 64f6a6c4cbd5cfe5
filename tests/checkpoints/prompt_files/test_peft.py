"""Adapters written by hand, as PEFT would; real ones are in `parity/test_peft.py`."""

import json
import sys

import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.errors import CheckpointError

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def write(folder, tensors=None, **changes):
    """Writes an adapter that PEFT would train for a T5 by default: 3 rows for each of two stacks."""
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "SEQ_2_SEQ_LM",
        "num_virtual_tokens": 3,
        "num_transformer_submodules": 2,
        "token_dim": 4,
        **changes,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors or {"prompt_embeddings": ROWS}, folder / "adapter_model.safetensors")
    return epath.Path(folder)


def read(folder, width=None):
    return peft.read_adapter(epath.Path(folder), setting="PROMPT_FILE", width=width)


@pytest.mark.parametrize("stacks", [2, None])
def test_the_rows_that_peft_gives_the_encoder_are_read(tmp_path, stacks):
    prompt, info = read(write(tmp_path, num_transformer_submodules=stacks))
    np.testing.assert_array_equal(prompt, ROWS[:3])
    assert info is None


def test_a_width_that_the_configuration_leaves_out_is_the_tensors(tmp_path):
    prompt, _ = read(write(tmp_path, token_dim=None), width=4)
    assert prompt.shape == (3, 4)
    with pytest.raises(CheckpointError, match="another width"):
        read(tmp_path, width=8)


def test_what_is_encoded_is_read_back(tmp_path):
    info = {"step": 30, "frozen_digest": "ab", "model": {"emb_dim": 4}}
    files = peft.encode_adapter(ROWS, info, base_model="org/name")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    prompt, read_info = read(tmp_path)
    np.testing.assert_array_equal(prompt, ROWS)
    assert read_info == info
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["num_transformer_submodules"] == 1
    assert (config["num_virtual_tokens"], config["token_dim"]) == ROWS.shape
    assert config["base_model_name_or_path"] == "org/name"


@pytest.mark.parametrize(
    ("base", "scale", "is_told"),
    [
        (None, 1, False),
        ("org/of-mine", 1, False),
        ("org/my-t5gemma-b", 1, False),
        ("google/t5gemma-2-270m-270m", 1, True),
        ("google/t5gemma-2b-2b-ul2", 2, True),
        ("google/flan-t5-base", 1, True),
    ],
)
def test_a_name_says_how_numbers_are_scaled_or_a_warning_that_it_does_not(
    tmp_path, caplog, base, scale, is_told
):
    prompt, _ = read(write(tmp_path, base_model_name_or_path=base))
    np.testing.assert_array_equal(prompt, ROWS[:3] * scale)
    assert ("Nothing says which model" in caplog.text) is not is_told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LORA"}, "of another kind: got 'peft_type LORA'"),
        ({"peft_type": None}, "of another kind: got 'peft_type None'"),
        ({"task_type": "CAUSAL_LM"}, "another kind of model: got 'task_type CAUSAL_LM'"),
        ({"num_transformer_submodules": 1}, r"contradicts .* \[6, 4\]', expected \[3, 4\]"),
        ({"num_virtual_tokens": None}, r"contradicts .* expected \[None, 4\]"),
        ({"token_dim": 5}, r"contradicts .* expected \[6, 5\]"),
    ],
)
def test_what_is_no_prompt_for_this_model_is_refused(tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        read(write(tmp_path, **changes))


def test_more_than_a_prompt_is_refused(tmp_path):
    tensors = {"prompt_embeddings": ROWS, "lm_head.weight": ROWS}
    with pytest.raises(CheckpointError, match="something else than a prompt: got .*lm_head"):
        read(write(tmp_path, tensors))


def test_damaged_adapters_are_refused(tmp_path):
    write(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(
        CheckpointError, match="Cannot read .*adapter_model.safetensors as a safetensors file"
    ):
        read(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="has no weights: got .*adapter_config.json"):
        read(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(CheckpointError, match="Cannot read .*adapter_config.json"):
            read(tmp_path)


def test_a_pickled_adapter_without_pytorch_names_the_extra(tmp_path, monkeypatch):
    write(tmp_path)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"only torch can read.*prompt-tuning\[hf\]"):
        read(tmp_path)
