import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from prompt_tuning.checkpoints import t5x_format
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.helpers import SHARED, requires_shared


def make_params(dtype="float32"):
    rng = np.random.default_rng(0)
    return {
        "encoder/layers_0/mlp/wi_0/kernel": rng.normal(size=(16, 32)).astype(jnp.dtype(dtype)),
        "encoder/encoder_norm/scale": rng.normal(size=(16,)).astype(jnp.dtype(dtype)),
        "token_embedder/embedding": rng.normal(size=(40, 16)).astype(jnp.dtype(dtype)),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("driver", ["file", "gfile"])
def test_reads_what_was_written(tmp_path, dtype, driver):
    params = make_params(dtype)
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 1100000, driver)
    source = t5x_format.T5XSource(path)
    assert source.step == 1100000
    assert source.kind == "t5x"
    assert source.shapes() == {k: (v.shape, v.dtype) for k, v in params.items()}
    for name, array in params.items():
        read = source.read(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    # Both ways of storing were met.
    folders = [p for p in path.iterdir() if p.is_dir()]
    assert len(folders) == 2


def test_moved_checkpoint_still_reads(tmp_path):
    params = make_params()
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    moved = path.rename(tmp_path / "elsewhere")
    source = t5x_format.T5XSource(moved)
    np.testing.assert_array_equal(
        source.read("token_embedder/embedding"), params["token_embedder/embedding"]
    )


@pytest.mark.parametrize("how", ["delete chunk", "truncate chunk", "delete folder"])
def test_incomplete_copy_is_an_error(tmp_path, how):
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", make_params(), 7)
    folder = path / "target.token_embedder.embedding"
    chunk = folder / "1.0"
    if how == "truncate chunk":
        chunk.write_bytes(chunk.read_bytes()[:50])
    else:
        chunk.unlink()
    if how == "delete folder":
        (folder / ".zarray").unlink()
    source = t5x_format.T5XSource(path)
    with pytest.raises(CheckpointError, match="token_embedder/embedding.*download"):
        source.read("token_embedder/embedding")


def test_other_shape_than_recorded_is_an_error(tmp_path):
    params = make_params()
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    params["token_embedder/embedding"] = np.ones((41, 16), np.float32)
    other = write_t5x_checkpoint(tmp_path / "other", params, 7)
    (path / "checkpoint").write_bytes((other / "checkpoint").read_bytes())
    with pytest.raises(CheckpointError, match="contradicts its own index"):
        t5x_format.T5XSource(path).read("token_embedder/embedding")


@pytest.mark.parametrize(
    "content", [b"", b"\x93", b"not msgpack", msgpack.packb({"optimizer": {"target": {}}})]
)
def test_damaged_index_is_an_error(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(CheckpointError, match="as a T5X checkpoint"):
        t5x_format.T5XSource(tmp_path)


def test_missing_index_is_an_error(tmp_path):
    assert not t5x_format.is_t5x_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no file `checkpoint`"):
        t5x_format.T5XSource(tmp_path)


def test_step_falls_back_to_the_name(tmp_path):
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", make_params(), 9)
    index = msgpack.unpackb((path / "checkpoint").read_bytes(), ext_hook=msgpack.ExtType)
    del index["optimizer"]["state"]["step"]
    packed = msgpack.packb(index)
    assert packed is not None
    (path / "checkpoint").write_bytes(packed)
    assert t5x_format.T5XSource(path).step == 7


@requires_shared
@pytest.mark.parametrize(
    ("folder", "step", "count", "dtype"),
    [
        ("t5x_checkpoint/checkpoint_1100000", 1100000, 52, "float32"),
        ("t5x_checkpoint_bf16/checkpoint_1100000", 1100000, 52, "bfloat16"),
        ("t5x_prompt_checkpoint/checkpoint_1100003", 1100003, 53, "float32"),
    ],
)
def test_real_t5x_checkpoints_equal_their_parameters(folder, step, count, dtype):
    assert SHARED is not None
    golden = SHARED / "golden"
    expected = dict(np.load(golden / "params.npz"))
    source = t5x_format.T5XSource(golden / folder)
    assert source.step == step
    assert len(source.shapes()) == count
    compared = 0
    for name, array in expected.items():
        read = source.read(name)
        assert read.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(read, array.astype(jnp.dtype(dtype)))
        compared += 1
    assert compared == 52
    if count == 53:
        prompt = next((golden / "t5x_prompt_checkpoint/numpy_checkpoints").glob("*/enc*"))
        np.testing.assert_array_equal(source.read("encoder/prompt/prompt/prompt"), np.load(prompt))
