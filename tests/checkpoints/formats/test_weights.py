import json

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.data.content import unsealed
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.tiny_params import make_unscanned

_ORIGIN = {
    "kind": "t5x",
    "path": "/somewhere/checkpoint_100",
    "step": 100,
    "frozen_digest": None,
    "trainable_paths": [],
    "metadata": {},
    "settings": None,
}


def write(path, params, **origin):
    writer = weights.WeightsWriter(path)
    for name, array in params.items():
        writer.write(name, array)
    writer.finish(source={**_ORIGIN, **origin}, digest="ab")
    return path


def test_reads_what_was_written_whole_and_in_parts(tmp_path, monkeypatch):
    # Small blocks, so that arrays have several.
    monkeypatch.setattr(weights, "_CHUNK_BYTES", 128)
    params = make_unscanned()
    params["token_embedder/embedding"] = params["token_embedder/embedding"].astype(jnp.bfloat16)
    params["scalar"] = np.array(3.0, np.float32)
    params["alone"] = np.array([7.0], np.float32)
    source = open_source(write(tmp_path / "w", params))
    assert isinstance(source, weights.WeightsSource)
    assert (source.kind, source.source_kind, source.step, source.digest) == (
        "weights",
        "t5x",
        100,
        "ab",
    )
    assert source.shapes() == {path: (x.shape, x.dtype) for path, x in params.items()}
    several = 0
    for path, array in params.items():
        read = source.read(path)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
        index = tuple(slice(size // 4, max(size // 2, 1)) for size in array.shape)
        np.testing.assert_array_equal(source.read(path, index), array[index])
        chunk = source.chunks(path)
        assert np.prod(chunk) * array.itemsize <= 128
        several += chunk != array.shape
    assert several > 5


def test_a_stopped_conversion_is_told_from_a_finished_one(tmp_path):
    path = write(tmp_path / "w", make_unscanned())
    assert weights.is_weights(path)
    (path / "weights.json").unlink()
    assert not weights.is_weights(path)
    for attempt in (open_source, weights.WeightsWriter):
        with pytest.raises(CheckpointError, match="is unfinished.*delete .*convert. again"):
            attempt(path)


def test_nothing_is_overwritten(tmp_path):
    path = write(tmp_path / "w", make_unscanned())
    (tmp_path / "file").write_text("x")
    for there in (path, tmp_path, tmp_path / "file"):
        with pytest.raises(CheckpointError, match="exists already"):
            weights.WeightsWriter(there)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", make_unscanned())


@pytest.mark.parametrize("how", ["lost array", "lost database", "other shape"])
def test_damage_is_an_error(tmp_path, how):
    path = write(tmp_path / "w", make_unscanned())
    index = unsealed(json.loads((path / "weights.json").read_text()))
    name = "token_embedder/embedding"
    if how == "lost array":
        index["params"]["other"], name = index["params"][name], "other"
    elif how == "lost database":
        (path / "arrays" / "manifest.ocdbt").unlink()
    else:
        index["params"][name]["shape"] = [16, 9]
    (path / "weights.json").write_bytes(json_files.encode(index))
    with pytest.raises(CheckpointError, match="of the converted weights.*again"):
        weights.WeightsSource(path).read(name)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda index: index.pop("params"), "Cannot read the converted weights.*params"),
        (lambda index: index.update(version=2), "another version: got 2, expected 1"),
    ],
)
def test_an_index_that_does_not_fit_is_an_error(tmp_path, change, match):
    path = write(tmp_path / "w", make_unscanned())
    index = unsealed(json.loads((path / "weights.json").read_text()))
    change(index)
    (path / "weights.json").write_bytes(json_files.encode(index))
    with pytest.raises(CheckpointError, match=match):
        open_source(path)
    (path / "weights.json").write_text("{")
    with pytest.raises(CheckpointError, match="Cannot read .*weights.json"):
        open_source(path)


def test_an_error_while_writing_leaves_it_unfinished(tmp_path, monkeypatch):
    def fail(self, path, array):
        raise OSError("disk full")

    monkeypatch.setattr(weights.WeightsWriter, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "w", make_unscanned())
    assert not weights.is_weights(tmp_path / "w")
