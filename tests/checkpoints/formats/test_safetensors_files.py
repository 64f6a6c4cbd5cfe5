"""Tensors by byte range, and files that are damaged."""

import io
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.formats.safetensors_files import SafetensorsFiles
from prompt_tuning.errors import CheckpointError


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "a": rng.standard_normal((7, 3)).astype(np.float32),
        "b": rng.standard_normal((4, 2, 5)).astype(jnp.bfloat16),
        "half": rng.standard_normal(6).astype(np.float16),
        "scalar": np.asarray(3, np.float32),
    }


@pytest.mark.parametrize("num_files", [1, 2])
def test_every_tensor_comes_back(tmp_path, tensors, num_files):
    names = sorted(tensors)
    files = [tmp_path / f"{i}.safetensors" for i in range(num_files)]
    for i, file in enumerate(files):
        save_file({name: tensors[name] for name in names[i::num_files]}, file, {"format": "np"})
    stored = SafetensorsFiles(files)
    assert stored.shapes() == {name: (x.shape, x.dtype) for name, x in tensors.items()}
    for name, expected in tensors.items():
        got = stored.read(name)
        assert got.dtype == expected.dtype and got.tobytes() == expected.tobytes()


class CountedFile(io.FileIO):
    """A file that notes how many bytes are read of it."""

    num_read = 0

    def read(self, size=-1):
        data = super().read(size)
        CountedFile.num_read += len(data)
        return data


def test_rows_are_read_without_the_others(tmp_path, tensors, monkeypatch):
    file = tmp_path / "x.safetensors"
    save_file(tensors, file)
    monkeypatch.setattr(type(epath.Path(file)), "open", lambda self, mode: CountedFile(self, mode))
    monkeypatch.setattr(CountedFile, "num_read", 0)
    stored = SafetensorsFiles([file])
    assert 0 < CountedFile.num_read < file.stat().st_size - 7 * 3 * 4
    for rows in (slice(2, 5), slice(0, 1), slice(3, None), slice(None), slice(5, 5), slice(6, 99)):
        CountedFile.num_read = 0
        expected = tensors["a"][rows]
        np.testing.assert_array_equal(stored.read("a", rows), expected)
        assert CountedFile.num_read == expected.nbytes
    CountedFile.num_read = 0
    np.testing.assert_array_equal(stored.read("b", slice(1, 3)), tensors["b"][1:3])
    assert CountedFile.num_read == 2 * 10 * 2


def header_of(content: dict, data: bytes = b"") -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"\xff" * 8, "a header of 18446744073709551615 bytes"),
        (b"not a safetensors file at all", "a header of"),
        (struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc", "Error"),
        (header_of({"w": ENTRY}, b"1234"), "w ends at byte"),
        (header_of({"w": {**ENTRY, "shape": [3]}}, b"12345678"), "has 8 bytes"),
        (header_of({"w": {**ENTRY, "data_offsets": [8, 0]}}, b"12345678"), "has -8 bytes"),
        (header_of({"w": {**ENTRY, "dtype": "F8_E4M3"}}, b"12345678"), "dtype F8_E4M3"),
        (header_of({"w": {"dtype": "F32"}}), "KeyError"),
        (header_of({"w": 3}), "TypeError"),
    ],
)
def test_damaged_files_are_refused(tmp_path, content, message):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="Cannot read .*x.safetensors") as error:
        SafetensorsFiles([file])
    assert message in str(error.value)


def test_a_file_that_lost_its_end_meanwhile_is_refused(tmp_path, tensors):
    file = tmp_path / "x.safetensors"
    save_file({"a": tensors["a"]}, file)
    stored = SafetensorsFiles([file])
    file.write_bytes(file.read_bytes()[:-4])
    np.testing.assert_array_equal(stored.read("a", slice(0, 6)), tensors["a"][:6])
    with pytest.raises(CheckpointError, match="a ends after 80 of 84 bytes"):
        stored.read("a")


def test_missing_files_and_names_in_two_files_are_refused(tmp_path, tensors):
    with pytest.raises(CheckpointError, match="No file"):
        SafetensorsFiles([tmp_path / "x.safetensors"])
    for name in "xy":
        save_file({"a": tensors["a"]}, tmp_path / name)
    with pytest.raises(CheckpointError, match="a is stored twice: got 'x and y'"):
        SafetensorsFiles([tmp_path / "x", tmp_path / "y"])


def test_a_file_that_another_stands_for_is_named(tmp_path):
    for text, words in (
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        ("<!DOCTYPE html><html>not found</html>", "a web page.*download the file itself"),
    ):
        (tmp_path / "x.safetensors").write_text(text)
        with pytest.raises(CheckpointError, match=f"x.safetensors.*{words}"):
            SafetensorsFiles([tmp_path / "x.safetensors"])


def test_another_dtype_is_not_taken_for_damage(tmp_path):
    save_file({"steps": np.zeros(2, np.int64)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="steps has dtype I64.*save the model with floating"):
        SafetensorsFiles([tmp_path / "x.safetensors"])
