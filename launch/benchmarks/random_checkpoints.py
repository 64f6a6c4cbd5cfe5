"""Writes checkpoints of random weights, as large as real ones, without ever holding more than one file of them."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgpack
import numpy as np
import safetensors.numpy
import tensorstore

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface
from prompt_tuning.models.config import T5Config
from prompt_tuning.params import layouts

# T5X's aim for the size of a stored block. Unit: bytes.
_CHUNK_BYTES = 64 * 2**20
# Hugging Face starts another file when one would become larger. Unit: bytes.
_SHARD_BYTES = 2**30
_STEP = 1_100_000

_Shapes = Mapping[str, tuple[int, ...]]


def write_t5x(path: pathlib.Path, shapes: _Shapes, *, gzip_level: int = 1) -> None:
    """Writes a float32 checkpoint in T5X's format: gzip, blocks of at most 64 MiB, no optimizer state.

    Args:
      path: Directory to make.
      shapes: Path -> shape of every parameter, in either layout.
      gzip_level: T5X's is 1; 0 writes files of about the same size in a tenth of the time.
    """
    path.mkdir(parents=True)
    random = np.random.default_rng(0)
    leaves = {
        name: _write_zarr(path, name, shape, random, gzip_level) for name, shape in shapes.items()
    }
    step = msgpack.ExtType(1, msgpack.packb(((), "int32", np.int32(_STEP).tobytes())))
    index = {
        "version": 3,
        "optimizer": {"target": tree.unflatten(leaves), "state": {"step": step}},
    }
    packed = msgpack.packb(index)
    assert packed is not None
    (path / "checkpoint").write_bytes(packed)


def _write_zarr(
    path: pathlib.Path,
    name: str,
    shape: tuple[int, ...],
    random: np.random.Generator,
    gzip_level: int,
) -> dict[str, Any]:
    """Writes one array and returns what the index says about it."""
    folder = f"target.{name.replace('/', '.')}/"
    chunks = list(shape)
    while math.prod(chunks) * 4 > _CHUNK_BYTES:
        # As T5X: blocks divide the array, and the longest side is divided first.
        axis = chunks.index(max(chunks))
        chunks[axis] = next(n for n in range(chunks[axis] // 2, 0, -1) if not shape[axis] % n)
    metadata = {
        "shape": list(shape),
        "chunks": chunks,
        "compressor": {"id": "gzip", "level": gzip_level},
        "dtype": "<f4",
    }
    kvstore = {"driver": "file", "path": f"{path.absolute() / folder}/"}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
    store = tensorstore.open(spec, create=True).result()
    pending: collections.deque[Any] = collections.deque()
    for block in np.ndindex(*(size // c for size, c in zip(shape, chunks, strict=True))):
        index = tuple(slice(i * c, (i + 1) * c) for i, c in zip(block, chunks, strict=True))
        content = random.standard_normal(chunks, np.float32)
        if name.endswith("relpos_bias/rel_embedding") and layouts.is_stacked(name):
            content[:] = content[:, :1]  # Layers share one table.
        pending.append(store[index].write(content))
        if len(pending) > 2:
            pending.popleft().result()
    for write in pending:
        write.result()
    return {
        "driver": "zarr",
        "dtype": "float32",
        "kvstore": {"driver": "gfile", "path": folder},
        "metadata": {**metadata, "dtype": "<f4"},
    }


def write_huggingface(
    path: pathlib.Path,
    config: T5Config,
    shapes: _Shapes,
    read: Callable[[str], np.ndarray] | None = None,
) -> None:
    """Writes a float32 T5 1.1 as Hugging Face saves one that is too large for one file.

    Args:
      path: Directory to make.
      config: The model.
      shapes: Path -> shape of every parameter, unscanned.
      read: Path -> what to write there; None for random numbers.
    """
    path.mkdir(parents=True)
    names = dict(huggingface.layer_names(dataclasses.asdict(config)))
    names |= {huggingface.EMBEDDING: "shared.weight", huggingface.HEAD: "lm_head.weight"}
    tensors = {
        name: shapes[ours][::-1] if huggingface.is_transposed(ours) else shapes[ours]
        for ours, name in names.items()
    }
    assert len(tensors) == len(shapes)
    shards = list(_shards(tensors))
    random = np.random.default_rng(1)
    ours_of = {name: ours for ours, name in names.items()}
    weight_map = {}

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if read is None:
            return random.standard_normal(shape, np.float32)
        array = read(ours_of[name]).astype(np.float32)
        is_transposed = huggingface.is_transposed(ours_of[name])
        return np.ascontiguousarray(array.T if is_transposed else array)

    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        arrays = {name: values(name, shape) for name, shape in shard.items()}
        safetensors.numpy.save_file(arrays, path / file)
        weight_map |= dict.fromkeys(shard, file)
    total_size = 4 * sum(map(math.prod, tensors.values()))
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "config.json").write_text(json.dumps(huggingface_config(config)))


def _shards(tensors: _Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors, file by file."""
    shard: dict[str, tuple[int, ...]] = {}
    for name, shape in tensors.items():
        if shard and 4 * sum(map(math.prod, [*shard.values(), shape])) > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def huggingface_config(config: T5Config) -> dict[str, Any]:
    """Returns the `config.json` of a T5 1.1."""
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "vocab_size": config.vocab_size,
        "d_model": config.emb_dim,
        "d_kv": config.head_dim,
        "d_ff": config.mlp_dim,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    }
