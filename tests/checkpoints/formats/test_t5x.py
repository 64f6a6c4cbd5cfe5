import jax.numpy as jnp
import msgpack
import numpy as np
import pytest

from prompt_tuning.checkpoints.formats import t5x
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.t5x_writer import write_t5x_checkpoint


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
    source = t5x.T5XSource(path)
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
    source = t5x.T5XSource(moved)
    np.testing.assert_array_equal(
        source.read("token_embedder/embedding"), params["token_embedder/embedding"]
    )


def test_a_part_is_read_of_the_blocks_that_hold_it(tmp_path):
    params = make_params()
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    source = t5x.T5XSource(f"{path}/")
    table = params["token_embedder/embedding"]
    assert source.chunks("token_embedder/embedding") == (20, 16)
    assert source.chunks("encoder/encoder_norm/scale") == (16,)
    # Its second block is lost: what lies in the first can still be read.
    (path / "target.token_embedder.embedding" / "1.0").unlink()
    part = source.read("token_embedder/embedding", (slice(3, 20), slice(5, 9)))
    np.testing.assert_array_equal(part, table[3:20, 5:9])
    with pytest.raises(CheckpointError, match="Cannot read token_embedder/embedding"):
        source.read("token_embedder/embedding", (slice(3, 21), slice(5, 9)))
    scale = source.read("encoder/encoder_norm/scale", (slice(2, 5),))
    np.testing.assert_array_equal(scale, params["encoder/encoder_norm/scale"][2:5])


def rewrite_index(path, change):
    """Changes the tree under `optimizer` in the index of a checkpoint."""
    index = msgpack.unpackb((path / "checkpoint").read_bytes(), ext_hook=msgpack.ExtType)
    change(index["optimizer"])
    packed = msgpack.packb(index)
    assert packed is not None
    (path / "checkpoint").write_bytes(packed)


def test_arrays_that_msgpack_holds_in_pieces(tmp_path):
    from flax import serialization

    params = make_params()
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    kernel = params["encoder/layers_0/mlp/wi_0/kernel"]
    chunked = serialization._chunk(kernel)
    assert "__msgpack_chunked_array__" in chunked
    packed = serialization.msgpack_serialize({"a": chunked})
    stored = msgpack.unpackb(packed, ext_hook=msgpack.ExtType)["a"]

    def change(optimizer):
        optimizer["target"]["encoder"]["layers_0"]["mlp"]["wi_0"]["kernel"] = stored

    rewrite_index(path, change)
    source = t5x.T5XSource(path)
    assert source.shapes()["encoder/layers_0/mlp/wi_0/kernel"] == (kernel.shape, kernel.dtype)
    np.testing.assert_array_equal(source.read("encoder/layers_0/mlp/wi_0/kernel"), kernel)


@pytest.mark.parametrize("state", [None, {}, "gone"])
def test_the_optimizer_state_may_be_missing(tmp_path, state):
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", make_params(), 9)

    def change(optimizer):
        optimizer["state"] = state
        if state == "gone":
            del optimizer["state"]

    rewrite_index(path, change)
    source = t5x.T5XSource(path)
    assert source.step == 7
    assert len(source.shapes()) == 3


def test_uint16_in_place_of_bfloat16_is_refused(tmp_path):
    from prompt_tuning.checkpoints import load
    from prompt_tuning.partitioning import PjitPartitioner

    params = make_params("bfloat16")
    kernel = "encoder/layers_0/mlp/wi_0/kernel"
    path = write_t5x_checkpoint(
        tmp_path / "checkpoint_7", {**params, kernel: params[kernel].view(np.uint16)}, 7
    )
    source = t5x.T5XSource(path)
    shardings = dict.fromkeys(params, PjitPartitioner().replicated)
    with pytest.raises(CheckpointError, match=f"1 of 3 arrays .*{kernel}': 'uint16'"):
        load.load_params(source, params, shardings)


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
    source = t5x.T5XSource(path)
    with pytest.raises(CheckpointError, match="token_embedder/embedding.*download"):
        source.read("token_embedder/embedding")


def test_other_shape_than_recorded_is_an_error(tmp_path):
    params = make_params()
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", params, 7)
    params["token_embedder/embedding"] = np.ones((41, 16), np.float32)
    other = write_t5x_checkpoint(tmp_path / "other", params, 7)
    (path / "checkpoint").write_bytes((other / "checkpoint").read_bytes())
    with pytest.raises(CheckpointError, match="contradicts its own index"):
        t5x.T5XSource(path).read("token_embedder/embedding")


@pytest.mark.parametrize(
    "content", [b"", b"\x93", b"not msgpack", msgpack.packb({"optimizer": {"target": {}}})]
)
def test_damaged_index_is_an_error(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(CheckpointError, match="as a T5X checkpoint"):
        t5x.T5XSource(tmp_path)


@pytest.mark.parametrize("recorded", ["..", "/other/..", ".", "/"])
def test_no_index_leads_out_of_its_folder(tmp_path, recorded):
    array = {"driver": "zarr", "dtype": "float32", "metadata": {"shape": [2, 2], "dtype": "<f4"}}
    array["kvstore"] = {"driver": "file", "path": recorded}
    index = {"optimizer": {"target": {"prompt": array}}}
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(index))
    with pytest.raises(CheckpointError, match="as a T5X checkpoint"):
        t5x.T5XSource(tmp_path)


def test_missing_index_is_an_error(tmp_path):
    assert not t5x.is_t5x_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no file `checkpoint`"):
        t5x.T5XSource(tmp_path)


def test_step_falls_back_to_the_name(tmp_path):
    path = write_t5x_checkpoint(tmp_path / "checkpoint_7", make_params(), 9)
    rewrite_index(path, lambda optimizer: optimizer["state"].pop("step"))
    assert t5x.T5XSource(path).step == 7
