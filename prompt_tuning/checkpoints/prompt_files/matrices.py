"""Reads prompts and embedding tables: matrices in NumPy's `.npy` format, small tensors in `.safetensors`."""

import io
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from etils import epath
from jaxtyping import Float
from safetensors.numpy import save

from prompt_tuning.errors import CheckpointError

# NumPy has no name for bfloat16 in a .npy header and stores two opaque bytes.
_OPAQUE_BFLOAT16 = np.dtype("V2")
# The floating dtypes by their safetensors names; the package's own NumPy reader knows no bfloat16.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Where the metadata of a .safetensors file says, in JSON, what its prompt belongs to.
_INFO = "prompt_tuning"


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
    return check_matrix(_load(path, what, setting), path, what=what, setting=setting, width=width)


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
    if not np.isfinite(matrix).all():
        raise CheckpointError(
            f"{path} holds numbers that are not finite",
            got=f"{int((~np.isfinite(matrix)).sum())} of {matrix.size} not finite",
            expected="finite numbers",
            fix=f"use another {what}, such as that of an earlier step",
        )
    return matrix


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
    try:
        content = path.read_bytes()
        stored = dict(safetensors.deserialize(content))
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except FileNotFoundError as e:
        raise CheckpointError(
            "No such file", got=str(path), expected="a .safetensors file", fix="correct the path"
        ) from e
    except safetensors.SafetensorError as e:
        raise CheckpointError(
            f"{path} is not a safetensors file",
            got=str(e),
            expected="a whole .safetensors file",
            fix="check the path and that the file was copied whole",
        ) from e
    strange = {name: tensor["dtype"] for name, tensor in stored.items()}
    strange = {name: dtype for name, dtype in strange.items() if dtype not in _FLOATS}
    if strange:
        raise CheckpointError(
            f"{path} holds no prompt",
            got=strange,
            expected=f"tensors of dtype {', '.join(_FLOATS)}",
            fix="point at the file of one prompt",
        )
    tensors = {
        name: np.frombuffer(tensor["data"], jnp.dtype(_FLOATS[tensor["dtype"]])).reshape(
            tensor["shape"]
        )
        for name, tensor in stored.items()
    }
    return tensors, _decode_info(header.get("__metadata__", {}), path)


def encode_safetensors(name: str, matrix: np.ndarray, info: Mapping[str, Any]) -> bytes:
    """Returns a `.safetensors` file.

    Args:
      name: Name of its one tensor.
      matrix: The tensor.
      info: What it belongs to, for `read_safetensors`; anything JSON can hold.
    """
    # PyTorch's readers, PEFT's among them, ask for a format; the bytes are the same for all.
    metadata = {"format": "pt", _INFO: json.dumps(dict(info), sort_keys=True, default=str)}
    return save({name: np.ascontiguousarray(matrix)}, metadata)


def _decode_info(metadata: Mapping[str, str], path: epath.Path) -> dict[str, Any] | None:
    """What the metadata of a file says that its tensor belongs to."""
    try:
        return json.loads(metadata[_INFO]) if _INFO in metadata else None
    except ValueError as e:
        raise CheckpointError(
            f"The metadata of {path} is damaged",
            got=str(e),
            expected=f"JSON under the key {_INFO!r}",
            fix="export the prompt again",
        ) from e


def _load(path: epath.Path, what: str, setting: str) -> np.ndarray:
    """The array in a `.npy` file, whatever it is."""
    if not path.is_file():
        raise CheckpointError(
            f"No {what} file",
            got=str(path),
            expected="a .npy file",
            fix=f"correct {setting}",
        )
    try:
        array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    except (ValueError, EOFError, OSError) as e:
        raise _not_numpy(path, what, str(e)) from e
    if not isinstance(array, np.ndarray):
        raise _not_numpy(path, what, type(array).__name__)
    return array


def _not_numpy(path: epath.Path, what: str, got: str) -> CheckpointError:
    """The error for a file that numpy.save did not write, or that is not whole."""
    return CheckpointError(
        f"{path} is not a NumPy file",
        got=got,
        expected=f"a {what} written by numpy.save",
        fix="check the path and that the file was copied whole",
    )
