"""Every form a prompt may be read from, and what is at a path instead of one."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.prompt_files import peft
from prompt_tuning.checkpoints.prompt_files import write as prompt_file
from prompt_tuning.checkpoints.prompt_files.matrices import encode_safetensors
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.errors import CheckpointError
from tests.helpers import SHARED, requires_shared

PATH = "encoder/prompt/prompt/prompt"
NAME = "encoder.prompt.prompt.prompt"
PROMPT = np.arange(6, dtype=np.float32).reshape(2, 3)
INFO = {"task": "boolq", "frozen_digest": "ab"}


def _npy(root):
    np.save(root / "p.npy", PROMPT)
    (root / "p.npy.json").write_text(json.dumps(INFO))
    return root / "p.npy"


def _saved_by_a_run(root):
    prompt_file.save_prompts(root, 5, {PATH: PROMPT}, INFO)
    return prompt_file.folder(root, 5) / NAME


def _folder_of_a_step(root):
    return _saved_by_a_run(root).parent


def _safetensors(root):
    (root / "p.safetensors").write_bytes(encode_safetensors({NAME: PROMPT}, INFO))
    return root / "p.safetensors"


def _adapter(root):
    for name, content in peft.encode_adapter(PROMPT, INFO, base_model=None).items():
        (root / name).write_bytes(content)
    return root


def _file_in_an_adapter(root):
    return _adapter(root) / "adapter_model.safetensors"


FORMS = [_npy, _saved_by_a_run, _folder_of_a_step, _safetensors, _adapter, _file_in_an_adapter]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_gives_the_prompt_and_what_is_recorded(write, tmp_path):
    path = write(tmp_path)
    prompt, info = load_prompt(path, width=3)
    assert prompt.dtype == np.float32
    np.testing.assert_array_equal(prompt, PROMPT)
    assert info is not None
    assert info.items() >= INFO.items()
    with pytest.raises(CheckpointError, match="got 'width 3', expected the model's width 8"):
        load_prompt(path, width=8)


def test_nothing_recorded_is_none(tmp_path):
    np.save(tmp_path / "p.npy", PROMPT)
    save_file({"any name": PROMPT.astype(jnp.bfloat16)}, tmp_path / "p.safetensors")
    for name in ("p.npy", "p.safetensors"):
        prompt, info = load_prompt(tmp_path / name)
        np.testing.assert_array_equal(prompt, PROMPT)
        assert info is None


def test_a_missing_prompt_names_one_nearby(tmp_path):
    with pytest.raises(CheckpointError, match="No prompt file: .*correct PROMPT_FILE"):
        load_prompt(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="got '[^']*', expected [^;]*Fix: correct SOURCE"):
        load_prompt(tmp_path, setting="SOURCE")
    for step in (5, 10):
        prompt_file.save_prompts(tmp_path, step, {PATH: PROMPT}, {})
    for folder in (tmp_path, tmp_path / "numpy_checkpoints"):
        with pytest.raises(CheckpointError, match="for example .*numpy_checkpoints/checkpoint_10"):
            load_prompt(folder)
    np.save(tmp_path / "a.npy", PROMPT)
    np.save(tmp_path / "b.npy", PROMPT)
    with pytest.raises(CheckpointError, match="or several, in the folder"):
        load_prompt(tmp_path)


def test_a_damaged_side_file_is_an_error(tmp_path):
    path = _npy(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "p.npy.json").write_text(text)
        with pytest.raises(CheckpointError, match="Cannot read .*p.npy.json"):
            load_prompt(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": PROMPT, "b": PROMPT}, "more or less than one prompt: got .'a', 'b'"),
        ({"a": PROMPT[0]}, r"holds no prompt: got 'float32\[3\]'"),
        ({"a": PROMPT.astype(np.int32)}, "a has dtype I32"),
        ({"a": PROMPT * np.float32(np.nan)}, "6 of 6 not finite"),
    ],
)
def test_safetensors_that_are_no_prompt_are_errors(tensors, message, tmp_path):
    save_file(tensors, tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_prompt(tmp_path / "p.safetensors")


def test_damaged_metadata_is_an_error(tmp_path):
    save_file({"a": PROMPT}, tmp_path / "p.safetensors", metadata={"prompt_tuning": "{"})
    with pytest.raises(CheckpointError, match="Cannot read the metadata of .*p.safetensors"):
        load_prompt(tmp_path / "p.safetensors")


@requires_shared
@pytest.mark.parametrize("task", ["sst2", "mrpc", "rte"])
def test_released_prompts_load(task):
    assert SHARED is not None
    path = SHARED / "data" / "prompts" / "t5_1_1_lm100k_base" / f"{task}.npy"
    prompt, info = load_prompt(path, width=768)
    assert prompt.shape == (100, 768)
    np.testing.assert_array_equal(prompt, np.load(path))
    assert info is None
    with pytest.raises(CheckpointError, match="got 'width 768', expected the model's width 1024"):
        load_prompt(path, width=1024)


@requires_shared
def test_what_the_original_code_left_loads():
    assert SHARED is not None
    root = SHARED / "golden" / "t5x_prompt_checkpoint" / "numpy_checkpoints"
    (folder,) = root.glob("checkpoint_*")
    prompt, info = load_prompt(folder)
    assert prompt.shape == (6, 32)
    assert info is None
    np.testing.assert_array_equal(prompt, load_prompt(folder / NAME)[0])
