"""Writes tensors one after the other into safetensors files of a size that the Hugging Face hub takes.

What a file holds is decided before its first byte, so that its header can stand in front: memory holds one tensor, and
gs:// works, which writes no file but from front to back.
"""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.checkpoints.formats.safetensors_files import DTYPES

# What a file holds at most, but for a larger tensor. Unit: bytes.
SHARD_BYTES = 5 * 10**9
# Of a tensor that is transposed, what is brought into order at a time. Unit: bytes.
_BLOCK_BYTES = 16 * 2**20

_Tensors = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def write_shards(
    folder: epath.Path,
    tensors: _Tensors,
    arrays: Iterable[np.ndarray],
    *,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Writes `model.safetensors`, or as many shards as it takes and their index.

    Args:
      folder: Where to; local or gs://.
      tensors: Name -> (shape, dtype) of each, in the order in which they come.
      arrays: The tensors themselves.
      shard_bytes: What a file holds at most. Unit: bytes.

    Returns:
      The size of all tensors. Unit: bytes.
    """
    shards = _plan(tensors, shard_bytes)
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i, _ in enumerate(shards, 1)]
    coming = iter(arrays)
    for file, shard in zip(files, shards, strict=True):
        with (folder / file).open("wb") as stream:
            stream.write(_header(shard))
            # The shard first: it is asked first, so that what belongs to the next one is not taken.
            for (name, (shape, dtype)), array in zip(shard.items(), coming, strict=False):
                assert (array.shape, array.dtype) == (shape, dtype), (name, array.shape)
                rows = max(1, _BLOCK_BYTES // max(1, _size(shape[1:], dtype)))
                for start in range(0, shape[0], rows):
                    stream.write(array[start : start + rows].tobytes())
    total = sum(_size(*tensor) for tensor in tensors.values())
    if len(shards) > 1:
        weight_map = {
            name: file for file, shard in zip(files, shards, strict=True) for name in shard
        }
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        data = (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()
        json_files.write_atomically(folder / "model.safetensors.index.json", data)
    return total


def _plan(tensors: _Tensors, shard_bytes: int) -> Sequence[_Tensors]:
    """The tensors of each file, in order."""
    shards: list[dict[str, tuple[tuple[int, ...], np.dtype]]] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + _size(*tensor) > shard_bytes:
            shards.append({})
            held = 0
        shards[-1][name] = tensor
        held += _size(*tensor)
    return shards


def _header(shard: _Tensors) -> bytes:
    """What stands in front of the tensors of a file."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    sizes = [_size(*tensor) for tensor in shard.values()]
    ends = [*itertools.accumulate(sizes)]
    entries = {
        name: {"dtype": names[dtype], "shape": list(shape), "data_offsets": [end - size, end]}
        for (name, (shape, dtype)), size, end in zip(shard.items(), sizes, ends, strict=True)
    }
    # transformers opens a file only if it says which library it is for.
    text = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _size(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The size of an array. Unit: bytes."""
    return math.prod(shape) * dtype.itemsize
