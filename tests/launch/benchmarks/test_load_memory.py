"""Loading keeps within its bound, seen from outside: real processes, their peak memory as the system tells it."""

import dataclasses

import pytest

from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.launch.benchmarks import load_memory, measuring, random_checkpoints
from tests.helpers import tiny_config

# One device, compiled as a run is.
_AS_A_RUN = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "false"}
_MIB = 2**20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layout"),
    [("T5X", "scanned"), ("scanned T5X", "unscanned"), ("Hugging Face", "scanned")],
)
def test_peak_memory_is_bounded(tmp_path, kind, layout):
    # Matrices of 16 MiB, twelve of which make one stacked parameter: far more than twice the largest that is stored.
    config = tiny_config(
        emb_dim=1024,
        num_heads=8,
        head_dim=64,
        mlp_dim=4096,
        num_encoder_layers=12,
        num_decoder_layers=1,
    )
    path, shapes = tmp_path / kind, load_memory.param_shapes(config)
    if kind == "T5X":
        random_checkpoints.write_t5x(path, shapes, gzip_level=0)
    elif kind == "Hugging Face":
        random_checkpoints.write_huggingface(path, config, shapes)
    else:
        scanned = dataclasses.replace(config, scan_layers=True)
        random_checkpoints.write_t5x(path, load_memory.param_shapes(scanned), gzip_level=0)
    row = load_memory.measure(path, config, layout=layout, dtype="bfloat16", env=_AS_A_RUN)
    assert 360 * _MIB < row["devices"] < 380 * _MIB
    assert row["largest"] == (8 if layout == "unscanned" else 16) * _MIB
    assert row["bound"] == row["devices"] + 2 * row["largest"] + 512 * _MIB
    assert row["baseline"] < row["peak"] <= row["bound"]


def test_sizes_are_the_shipped_ones():
    xl = measuring.config_of("xl")
    assert (xl.emb_dim, xl.num_heads, xl.head_dim, xl.mlp_dim) == (2048, 32, 64, 5120)
    assert (xl.num_encoder_layers, xl.num_decoder_layers) == (24, 24)


def test_random_checkpoints_are_read_as_what_they_stand_for(tmp_path):
    config = measuring.config_of("tiny")
    shapes = load_memory.param_shapes(config)
    random_checkpoints.write_t5x(tmp_path / "t5x", shapes)
    random_checkpoints.write_huggingface(tmp_path / "hf", config, shapes)
    for kind, step in (("t5x", 1_100_000), ("hf", None)):
        source = open_source(tmp_path / kind)
        assert {path: shape for path, (shape, _) in source.shapes().items()} == shapes
        assert source.step == step
        values = source.read("token_embedder/embedding")
        assert values.dtype == "float32" and 0.9 < values.std() < 1.1
        files = [path for path in (tmp_path / kind).rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) > 0.9 * 4 * 2_105_984
