"""Writes checkpoints in T5X's older, own format, which every version of T5X reads; see `t5x.py`.

Source: T5X, `checkpoints.py` (format version 3). Differs: no optimizer state, which evaluation, inference and prompt
tuning do not read, and every array in a folder of its own, small ones too.
"""

from collections.abc import Iterable

import numpy as np
import tensorstore
from etils import epath
from flax import serialization

from prompt_tuning import tree
from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.checkpoints.formats import t5x
from prompt_tuning.checkpoints.formats.weights import chunk_shape

# As T5X compresses.
_COMPRESSOR = {"id": "gzip", "level": 1}


def write_t5x(folder: epath.Path, arrays: Iterable[tuple[str, np.ndarray]], *, step: int) -> int:
    """Writes parameters as one checkpoint; its index, which makes it one, comes last.

    Args:
      folder: Where to, by T5X's habit `.../checkpoint_{step}`; local or gs://.
      arrays: (path, parameter), float32 or bfloat16.
      step: Updates applied to them.

    Returns:
      The size of all parameters. Unit: bytes.
    """
    context, leaves, num_bytes = tensorstore.Context(), {}, 0
    for path, array in arrays:
        name = f"target.{path.replace('/', '.')}"
        metadata = {
            "shape": list(array.shape),
            "chunks": list(chunk_shape(array.shape, array.dtype)),
            "compressor": _COMPRESSOR,
        }
        spec = {"driver": "zarr", "dtype": array.dtype.name, "metadata": metadata}
        place = {**spec, "kvstore": paths.kvstore(folder / name), "create": True}
        tensorstore.open(place, context=context).result().write(array).result()
        # The place is looked up in the folder of the index, wherever that is then.
        leaves[path] = {**spec, "kvstore": {"driver": "file", "path": name}}
        num_bytes += array.nbytes
    state = {"step": np.int32(step), "param_states": {}}
    index = {"version": 3, "optimizer": {"target": tree.unflatten(leaves), "state": state}}
    packed = serialization.msgpack_serialize(index)
    json_files.write_atomically(folder / t5x.INDEX_FILE, packed)
    return num_bytes
