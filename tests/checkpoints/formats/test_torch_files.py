"""PyTorch's own files: tensors only, in part or whole, and nothing that runs code."""

import os
import pickle
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.formats.torch_files import TorchFiles
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.huggingface_writer import make_tensors, write_model

torch = pytest.importorskip("torch", reason="needs the extra [hf]")


@pytest.mark.parametrize("as_zip", [True, False])
def test_every_tensor_comes_back(tmp_path, as_zip):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((7, 3)).astype(np.float32)
    tensors = {
        "a": torch.from_numpy(values),
        "b": torch.from_numpy(values).to(torch.bfloat16),
        "half": torch.from_numpy(values).half(),
        "transposed": torch.from_numpy(values).T,
        "scalar": torch.tensor(3.0),
        "parameter": torch.nn.Parameter(torch.from_numpy(values)),
    }
    # The format before torch 1.6 cannot be mapped to memory.
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=as_zip)
    stored = TorchFiles([tmp_path / "x.bin"])
    dtypes = {"b": jnp.dtype(jnp.bfloat16), "half": np.dtype(np.float16)}
    for name, (shape, dtype) in stored.shapes().items():
        assert shape == tuple(tensors[name].shape)
        assert dtype == dtypes.get(name, np.dtype(np.float32))
        got = stored.read(name)
        assert got.dtype == dtype and got.shape == shape
        np.testing.assert_array_equal(
            got.astype(np.float32), tensors[name].detach().float().numpy()
        )
    assert len(stored.shapes()) == 6
    for name in ("a", "b"):
        got = stored.read(name, slice(2, 4)).astype(np.float32)
        np.testing.assert_array_equal(got, tensors[name][2:4].float().numpy())


def write_bin(folder, tensors, num_shards):
    """A model whose safetensors became PyTorch files."""
    write_model(folder, tensors, num_shards=num_shards)
    for file in folder.glob("model*.safetensors"):
        from safetensors.numpy import load_file

        content = {name: torch.from_numpy(x.copy()) for name, x in load_file(file).items()}
        torch.save(content, folder / file.name.replace(".safetensors", ".bin"))
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if num_shards:
        text = index.read_text().replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()
    else:
        (folder / "model.bin").rename(folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("num_shards", [0, 3])
def test_a_model_of_pytorch_files_is_the_model_of_safetensors(tmp_path, num_shards):
    tensors = make_tensors()
    expected = open_source(write_model(tmp_path / "safe", tensors))
    source = open_source(write_bin(tmp_path / "bin", tensors, num_shards))
    assert source.shapes() == expected.shapes() and len(source.shapes()) == 38
    for path, (shape, _) in source.shapes().items():
        index = tuple(slice(0, size - 1) for size in shape)
        for part in (None, index):
            np.testing.assert_array_equal(source.read(path, part), expected.read(path, part))


class Harmful:
    """Runs a command where it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, form):
    content = {"shared.weight": torch.zeros(2), "x": Harmful(f"touch {tmp_path}/harmed")}
    file = tmp_path / "pytorch_model.bin"
    if form == "pickle":
        file.write_bytes(pickle.dumps(Harmful(f"touch {tmp_path}/harmed")))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match="do not open this file with a loader that runs code"):
        TorchFiles([file])
    assert not (tmp_path / "harmed").exists()
    # It is what it is said to be.
    if form == "pickle":
        pickle.loads(file.read_bytes())
        assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"step": 3}, torch.zeros(2)])
def test_files_of_something_else_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="does not hold tensors only"):
        TorchFiles([tmp_path / "x.bin"])


def test_missing_and_remote_files_and_a_missing_torch_are_named(tmp_path, monkeypatch):
    for path in (tmp_path / "x.bin", "gs://bucket/pytorch_model.bin"):
        with pytest.raises(CheckpointError, match="no local file"):
            TorchFiles([path])
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match=r"pip install prompt-tuning\[hf\]"):
        TorchFiles([tmp_path / "x.bin"])


def test_a_git_lfs_pointer_is_named(tmp_path):
    (tmp_path / "x.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="x.bin.*Git LFS pointer.*git lfs pull"):
        TorchFiles([tmp_path / "x.bin"])
