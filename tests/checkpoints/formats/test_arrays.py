import os

import numpy as np
import pytest
import tensorstore

from prompt_tuning.checkpoints.formats.arrays import StoredArray, StoredArrays, in_database
from prompt_tuning.checkpoints.paths import kvstore
from prompt_tuning.errors import CheckpointError


def store(folder, *, is_database, shape, chunks, fill=0.0):
    """An array whose chunks are nowhere, as its header alone says it is."""
    place = in_database(folder, "w") if is_database else kvstore(folder / "w")
    metadata = {"shape": shape, "chunks": chunks, "dtype": "<f4", "fill_value": fill}
    spec = {"driver": "zarr", "kvstore": place, "metadata": metadata}
    tensorstore.open(spec, create=True).result()
    leaf = StoredArray(place, tuple(shape), np.dtype(np.float32))
    return StoredArrays({"w": leaf}, where="the checkpoint", fix="copy it again")


@pytest.mark.parametrize("is_database", [True, False])
@pytest.mark.parametrize("chunks", [[10**6, 1], [10**3, 10**3]])
def test_a_header_that_asks_for_memory_is_not_believed(tmp_path, is_database, chunks):
    arrays = store(tmp_path, is_database=is_database, shape=[10**6, 10**6], chunks=chunks)
    assert arrays.shapes() == {"w": ((10**6, 10**6), np.float32)}
    for read in (lambda: arrays.read("w"), lambda: arrays.chunks("w")):
        with pytest.raises(CheckpointError, match="larger than its files can hold.*copy it again"):
            read()


def test_nor_are_its_blocks(tmp_path):
    arrays = store(tmp_path, is_database=False, shape=[4, 4], chunks=[10**6, 10**6])
    with pytest.raises(CheckpointError, match="larger than its files can hold"):
        arrays.read("w")


def test_zeros_that_are_stored_nowhere_are_read(tmp_path):
    arrays = store(tmp_path, is_database=False, shape=[100, 100], chunks=[50, 100])
    np.testing.assert_array_equal(arrays.read("w"), np.zeros((100, 100)))


@pytest.mark.parametrize("is_database", [True, False])
def test_a_pipe_among_its_files_is_not_waited_for(tmp_path, is_database):
    arrays = store(tmp_path, is_database=is_database, shape=[4, 4], chunks=[4, 4])
    (file,) = [path for path in tmp_path.rglob("*") if path.name in ("manifest.ocdbt", ".zarray")]
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(CheckpointError, match=f"{file.name} is no file, but a device or a pipe"):
        arrays.read("w")
