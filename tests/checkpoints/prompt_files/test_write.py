import io

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.checkpoints.prompt_files.read import load_prompt

PATH = "encoder/prompt/prompt/prompt"
NAME = "encoder.prompt.prompt.prompt"


def test_written_file_is_a_plain_npy(tmp_path):
    prompt = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    info = {"task": "boolq", "digest": "ab", "value": np.float32(0.5), "dtype": np.dtype("f4")}
    write.save_prompts(tmp_path, 30, {PATH: jnp.asarray(prompt)}, info)
    folder = tmp_path / "numpy_checkpoints" / "checkpoint_30"
    assert sorted(p.name for p in folder.iterdir()) == [NAME, f"{NAME}.json"]
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint_30"]
    np.testing.assert_array_equal(np.load(io.BytesIO((folder / NAME).read_bytes())), prompt)
    loaded, side = load_prompt(folder / NAME)
    np.testing.assert_array_equal(loaded, prompt)
    assert loaded.dtype == np.float32
    assert side == {
        "task": "boolq",
        "digest": "ab",
        "value": 0.5,
        "dtype": "float32",
        "parameter": PATH,
        "shape": [5, 8],
        "step": 30,
    }


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        prompts = {PATH: np.full((2, 3), value, np.float32)}
        write.save_prompts(tmp_path, 5, prompts, {"value": value})
    prompt, side = load_prompt(write.folder(tmp_path, 5) / NAME)
    assert prompt[0, 0] == 2.0
    assert side is not None and side["value"] == 2.0


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    def killed(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(write.json_files, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            write.save_prompts(tmp_path, 5, {PATH: np.ones((2, 3), np.float32)}, {})
    assert not write.folder(tmp_path, 5).exists()
    write.save_prompts(tmp_path, 5, {PATH: np.ones((2, 3), np.float32)}, {})
    assert [p.name for p in (tmp_path / "numpy_checkpoints").iterdir()] == ["checkpoint_5"]


def test_update_info_adds_and_keeps(tmp_path):
    write.save_prompts(tmp_path, 5, {PATH: np.ones((2, 3), np.float32)}, {"task": "cb"})
    write.update_info(tmp_path, 5, {"metric": {"name": "accuracy", "value": 0.5}})
    _, side = load_prompt(write.folder(tmp_path, 5) / NAME)
    assert side is not None and side["task"] == "cb"
    assert side["metric"] == {"name": "accuracy", "value": 0.5}
