"""Reads prompts and embedding tables: matrices in NumPy's `.npy` format, small tensors in `.safetensors`."""

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float
from safetensors.numpy import save

from prompt_tuning.checkpoints.formats.safetensors_files import SafetensorsFiles
from prompt_tuning.data import file_kinds
from prompt_tuning.data.content import SEAL, is_file, of_bytes, sealed, unsealed
from prompt_tuning.errors import CheckpointError, unreadable

# NumPy has no name for bfloat16 in a .npy header and stores two opaque bytes.
_OPAQUE_BFLOAT16 = np.dtype("V2")
# Where the metadata of a .safetensors file says, in JSON, what its prompt belongs to.
_INFO = "prompt_tuning"
# There, the digest of the tensors.
_CONTENT = "content (SHA-256)"
# The root mean square of a row, by which a T5's layers divide, is no float32 number of larger ones.
_LARGEST = 1e16


def read_matrix(
    path: epath.PathLike, *, what: str, setting: str, width: int | None = None
) -> Float[np.ndarray, "rows width"]:
    """Reads a matrix of finite numbers.

    Args:
      path: A `.npy` file, with or without suffix; local or gs://. Any floating dtype, bfloat16 included.
      what: What the matrix is, for messages: "prompt", "embedding table".
      setting: The setting that names the file, for messages.
      width: Columns it must have; None allows any number.

    Returns:
      [rows, width] float32.

    Raises:
      CheckpointError: If the file is missing, is no `.npy` file, or holds anything but such a matrix.
    """
    path = epath.Path(path)
    if not is_file(path):
        raise CheckpointError(
            f"No {what} file",
            got=str(path),
            expected="a .npy file",
            fix=f"correct {setting}",
        )
    try:
        content = path.read_bytes()
        _check_size(content)
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError(type(array).__name__)
    except (ValueError, EOFError, OSError) as e:
        cause, fix = file_kinds.stand_in(path) or (
            e,
            "check the path and that the file was copied whole",
        )
        raise unreadable(
            f"{path} as a NumPy file", cause, expected=f"a {what} written by numpy.save", fix=fix
        ) from e
    return check_matrix(array, path, what=what, setting=setting, width=width)


def _check_size(content: bytes) -> None:
    """Raises ValueError if a header says more than its file holds: room is made for what it says."""
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        return
    buffer = io.BytesIO(content)
    version = np.lib.format.read_magic(buffer)
    is_first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(buffer)
    if math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"{len(content)} bytes for an array {list(shape)} of {dtype}")


def check_matrix(
    matrix: np.ndarray, path: epath.Path, *, what: str, setting: str, width: int | None
) -> Float[np.ndarray, "rows width"]:
    """Returns an array as [rows, width] float32; arguments and errors as those of `read_matrix`."""
    if matrix.dtype == _OPAQUE_BFLOAT16:
        matrix = matrix.view(jnp.bfloat16)
    if matrix.ndim != 2 or not matrix.size or not jnp.issubdtype(matrix.dtype, jnp.floating):
        raise CheckpointError(
            f"{path} holds no {what}",
            got=f"{matrix.dtype}{list(matrix.shape)}",
            expected=f"a float array [rows, {width or 'width'}]",
            fix=f"point {setting} at one {what}, a float matrix",
        )
    if width is not None and matrix.shape[1] != width:
        raise CheckpointError(
            f"The {what} in {path} is for a model of another width",
            got=f"width {matrix.shape[1]}",
            expected=f"the model's width {width}",
            fix=f"use a {what} of this model's size",
        )
    matrix = matrix.astype(np.float32)
    check_numbers(matrix, path, what=what)
    return matrix


def check_numbers(matrix: np.ndarray, path: epath.Path, *, what: str) -> None:
    """Raises CheckpointError if an array holds numbers that no model can compute with."""
    if not np.isfinite(matrix).all():
        raise CheckpointError(
            f"{path} holds numbers that are not finite",
            got=f"{int((~np.isfinite(matrix)).sum())} of {matrix.size} not finite",
            expected="finite numbers",
            fix=f"use another {what}, such as that of an earlier step",
        )
    largest = float(np.abs(matrix).max())
    if largest > _LARGEST:
        raise CheckpointError(
            f"{path} holds numbers that no model can compute with",
            got=largest,
            expected=f"numbers of at most {_LARGEST:.0e}, whose squares float32 can add up",
            fix=f"use another {what}, such as that of an earlier step",
        )


def read_safetensors(path: epath.Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads a whole `.safetensors` file.

    Args:
      path: The file; local or gs://.

    Returns:
      Its floating tensors by name, each in its own dtype, and what `encode_safetensors` was told of them; None if
      something else wrote the file.

    Raises:
      CheckpointError: If it is missing, damaged, or holds a tensor that is not floating.
    """
    files = SafetensorsFiles([path])
    tensors = {name: files.read(name) for name in files.shapes()}
    # By the digest in it too: without, a name that was damaged would be another program's.
    texts = [text for key, text in files.metadata.items() if key == _INFO or f'"{SEAL}"' in text]
    if not texts:
        return tensors, None
    try:
        info = json.loads(texts[0])
        recorded = unsealed({**info, _CONTENT: _digest_of(tensors)} if _CONTENT in info else info)
        if SEAL in info and files.metadata != _metadata(info):
            raise ValueError("not the header that was written")
    except (ValueError, TypeError, AttributeError) as e:
        whole = f"what was written, with JSON under the key {_INFO!r}"
        fix = "copy or export the prompt again"
        raise unreadable(f"the metadata of {path}", e, expected=whole, fix=fix) from e
    recorded.pop(_CONTENT, None)
    return tensors, recorded


def encode_safetensors(arrays: Mapping[str, np.ndarray], info: Mapping[str, Any]) -> bytes:
    """Returns a `.safetensors` file.

    Args:
      arrays: Name -> tensor.
      info: What they belong to, for `read_safetensors`; anything JSON can hold.
    """
    tensors = {name: np.ascontiguousarray(x) for name, x in sorted(arrays.items())}
    plain = json.loads(json.dumps(dict(info), default=str))
    return save(tensors, _metadata(sealed({**plain, _CONTENT: _digest_of(tensors)})))


def _metadata(info: Mapping[str, Any]) -> dict[str, str]:
    """What the header says beside the tensors."""
    # PyTorch's readers, PEFT's among them, ask for a format; the bytes are the same for all.
    return {"format": "pt", _INFO: json.dumps(dict(info), sort_keys=True)}


def _digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The digest of tensors: names, dtypes, shapes and content."""
    lines = [
        f"{name} {x.dtype} {list(x.shape)} {of_bytes(x.tobytes())}"
        for name, x in sorted(tensors.items())
    ]
    return of_bytes("\n".join(lines))


def encode_npy(matrix: np.ndarray) -> bytes:
    """Returns a `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, matrix, allow_pickle=False)
    return buffer.getvalue()
