"""Reads matrices in NumPy's `.npy` format: prompts and embedding tables."""

import io

import jax.numpy as jnp
import numpy as np
from etils import epath
from jaxtyping import Float

from prompt_tuning.errors import CheckpointError

# NumPy has no name for bfloat16 in a .npy header and stores two opaque bytes.
_OPAQUE_BFLOAT16 = np.dtype("V2")


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
    matrix = _load(path, what, setting)
    if matrix.dtype == _OPAQUE_BFLOAT16:
        matrix = matrix.view(jnp.bfloat16)
    if matrix.ndim != 2 or not jnp.issubdtype(matrix.dtype, jnp.floating):
        raise CheckpointError(
            f"{path} holds no {what}",
            got=f"{matrix.dtype}{list(matrix.shape)}",
            expected=f"a float array [rows, {width or 'width'}]",
            fix=f"point {setting} at the file of one {what}, a float matrix saved by numpy.save",
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


def _load(path: epath.Path, what: str, setting: str) -> np.ndarray:
    """The array in a file, whatever it is."""
    if not path.is_file():
        nearby = [p for p in sorted(path.glob("*")) if p.suffix != ".json"] if path.is_dir() else []
        raise CheckpointError(
            f"No {what} file",
            got=str(path),
            expected=f"a .npy file{f', for example {nearby[0]}' if nearby else ''}",
            fix=f"correct {setting}; prompts are below MODEL_DIR/numpy_checkpoints"
            if what == "prompt"
            else f"correct {setting}",
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
