"""Reads tensors, or some rows of one, from safetensors files by byte range.

A file is an 8-byte little-endian length, a JSON header of that length (name -> dtype, shape, byte range) and the
tensors' bytes. Only the bytes asked for are read, through `epath`: memory holds one tensor, and gs:// works.

Source: the safetensors format, https://huggingface.co/docs/safetensors. Differs: no memory map, whose pages would count
as resident until the whole file is.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from prompt_tuning.data import file_kinds
from prompt_tuning.data.content import is_file
from prompt_tuning.errors import CheckpointError, unreadable

# The floating dtypes, by their names in the header.
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": jnp.dtype(jnp.bfloat16),
}
_LENGTH_BYTES = 8
# The format's own limit; a longer header is a file of something else.
_MAX_HEADER_BYTES = 100_000_000


class _OtherDtypeError(ValueError):
    """A tensor is no floating-point one."""


class SafetensorsFiles:
    """The tensors of one or several safetensors files.

    Args:
      files: Their paths; local or gs://.

    Attributes:
      metadata: What the headers say beside the tensors, text by text.

    Raises:
      CheckpointError: If a file is missing, cut short or no safetensors file, or two files hold one name.
    """

    def __init__(self, files: Iterable[epath.PathLike]):
        """Reads every header, no tensor."""
        # Name -> (file, position of its first byte, dtype, shape).
        self._tensors: dict[str, tuple[epath.Path, int, np.dtype, tuple[int, ...]]] = {}
        self.metadata: dict[str, str] = {}
        for name in files:
            file = epath.Path(name)
            entries, metadata = _read_header(file)
            self.metadata |= metadata
            for tensor, entry in entries.items():
                if tensor in self._tensors:
                    raise CheckpointError(
                        f"{tensor} is stored twice",
                        got=f"{self._tensors[tensor][0].name} and {file.name}",
                        expected="every tensor in one file",
                        fix="download the checkpoint again",
                    )
                self._tensors[tensor] = (file, *entry)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns name -> (shape, dtype) of every tensor."""
        return {name: (shape, dtype) for name, (_, _, dtype, shape) in self._tensors.items()}

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """Returns a tensor, or a range of its first axis; reads no other byte of it.

        Args:
          name: One of `shapes()`.
          rows: Rows to read, with step 1; not of a scalar.

        Returns:
          A read-only array in the stored dtype.

        Raises:
          CheckpointError: If the file ends before the tensor does.
        """
        file, position, dtype, shape = self._tensors[name]
        if shape:
            start, stop, step = rows.indices(shape[0])
            assert step == 1, rows
            row_bytes = math.prod(shape[1:]) * dtype.itemsize
            position += start * row_bytes
            shape = (max(0, stop - start), *shape[1:])
        num_bytes = math.prod(shape) * dtype.itemsize
        with file.open("rb") as stream:
            stream.seek(position)
            data = stream.read(num_bytes)
        if len(data) != num_bytes:
            raise _damaged(file, f"{name} ends after {len(data)} of {num_bytes} bytes")
        return np.frombuffer(data, dtype).reshape(shape)


def _read_header(
    file: epath.Path,
) -> tuple[dict[str, tuple[int, np.dtype, tuple[int, ...]]], dict[str, str]]:
    """Name -> (position, dtype, shape) of every tensor in a file, checked against its length; and the metadata."""
    if file.exists() and not is_file(file):
        raise _damaged(file, "no file, but a folder, a device or a pipe")
    try:
        with file.open("rb") as stream:
            prefix = stream.read(_LENGTH_BYTES)
            if len(prefix) < _LENGTH_BYTES:
                raise ValueError(f"{len(prefix)} bytes")
            (length,) = struct.unpack("<Q", prefix)
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        size = file.stat().length
        entries = {
            name: _entry(name, fields, _LENGTH_BYTES + length, size)
            for name, fields in header.items()
        }
    except FileNotFoundError as e:
        raise CheckpointError(
            f"No file {file}",
            got="nothing there",
            expected="a safetensors file",
            fix="download the missing file",
        ) from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:  # whatever a damaged header has
        raise _damaged(file, e) from e
    return entries, metadata


def _entry(
    name: str, fields: Mapping[str, Any], data_start: int, file_size: int
) -> tuple[int, np.dtype, tuple[int, ...]]:
    """One tensor of the header; a ValueError if it is not one that can be read."""
    if fields["dtype"] not in DTYPES:
        raise _OtherDtypeError(
            f"{name} has dtype {fields['dtype']}, not one of {', '.join(DTYPES)}"
        )
    dtype, shape = DTYPES[fields["dtype"]], tuple(int(n) for n in fields["shape"])
    start, stop = fields["data_offsets"]
    if stop - start != math.prod(shape) * dtype.itemsize or start < 0 or min(shape, default=0) < 0:
        raise ValueError(f"{name} of shape {shape} has {stop - start} bytes")
    if data_start + stop > file_size:
        raise ValueError(f"{name} ends at byte {data_start + stop} of {file_size}")
    return data_start + start, dtype, shape


def _damaged(file: epath.Path, cause: object) -> CheckpointError:
    """The error for a file that is cut short or no safetensors file."""
    fix = "download the file again; a copy that was cut short looks like this"
    if isinstance(cause, _OtherDtypeError):
        fix = "save the model with floating-point weights: model.float().save_pretrained(FOLDER)"
    cause, fix = file_kinds.stand_in(file) or (cause, fix)
    return unreadable(
        f"{file} as a safetensors file",
        cause,
        expected="a whole safetensors file of floating-point tensors",
        fix=fix,
    )
