import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.prompt_files.matrices import read_matrix
from prompt_tuning.errors import CheckpointError

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


def read(path, **kwargs):
    return read_matrix(path, what="prompt", setting="PROMPT_FILE", **kwargs)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_any_float_dtype_becomes_float32(tmp_path, dtype):
    np.save(tmp_path / "p.npy", MATRIX.astype(jnp.dtype(dtype)))
    matrix = read(tmp_path / "p.npy", width=3)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, MATRIX)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="No prompt file.*nothing.*correct PROMPT_FILE"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3, 4), np.float32), r"holds no prompt: got 'float32\[2, 3, 4\]'"),
        (np.ones((2, 3), np.int32), "holds no prompt: got 'int32"),
        (np.zeros((2, 3), "V1"), "holds no prompt"),
        (np.zeros((0, 3), np.float32), "holds no prompt"),
        (np.array([[1, np.nan]], np.float32), "1 of 2 not finite"),
        (np.array([[1, np.inf]]).astype(jnp.bfloat16), "1 of 2 not finite"),
        (np.array([[1, 1e30]], np.float32), "no model can compute with: got 1.*e\\+30"),
        (np.array([["a"]], object), "as a NumPy file"),
    ],
)
def test_anything_but_a_finite_float_matrix_is_an_error(tmp_path, array, message):
    np.save(tmp_path / "p.npy", array)
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "p.npy")


def test_other_files_are_errors(tmp_path):
    path = tmp_path / "p.npy"
    for content in (b"", b"not an array"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="as a NumPy file"):
            read(path)
    np.save(path, MATRIX)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="as a NumPy file"):
        read(path)
    # A header that asks for a terabyte asks for it in vain.
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**36, 4)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(CheckpointError, match=r"bytes for an array \[68719476736, 4\]"):
        read(path)
    with path.open("wb") as file:
        np.savez(file, a=MATRIX)
    with pytest.raises(CheckpointError, match="as a NumPy file: got 'ValueError: NpzFile'"):
        read(path)
