"""What things are made of, to be recorded and compared: files by digest, settings and functions by value.

Nothing here knows of modification times, so that no edit, however quick, is taken for none, and a copy counts as what
it is a copy of.
"""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import json
import os
import re
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

# What a record calls its own digest.
SEAL = "sha256"
# Files of up to this size together are read whole; of larger ones, as C4's, evenly spaced blocks. Unit: bytes.
WHOLE_BYTES = 2**30
# Other weights differ everywhere. Unit: bytes.
WEIGHTS_BYTES = 16 * 2**20
_BLOCK_BYTES = 64 * 2**10
_THREADS = 8
# A text that is longer is recorded by its digest: a record lies beside every checkpoint.
_MAX_CHARACTERS = 300
_STDLIB = sysconfig.get_paths()["stdlib"]
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
_PACKAGE = __name__.partition(".")[0]
_PLAIN = (str, int, float, bool, bytes, list, tuple, dict, set, frozenset)


def of_bytes(content: bytes | str) -> str:
    """Returns the SHA-256 of some bytes, or of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record of JSON values with its own digest, for `unsealed`."""
    return {**record, SEAL: of_bytes(json.dumps(record, sort_keys=True))}


def unsealed(record: Any) -> dict[str, Any]:
    """Returns a record without its digest; one that has none, as older versions and others wrote it, as it is.

    Args:
      record: What was read.

    Raises:
      ValueError: If it is no JSON object, or not what was written.
    """
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    for seal in [SEAL] if SEAL in record else [n for n, v in record.items() if _is_digest(v)]:
        rest = {name: value for name, value in record.items() if name != seal}
        is_right = sealed(rest)[SEAL] == record[seal]
        # The digest may be whole, and its name damaged.
        if is_right != (seal == SEAL):
            raise ValueError("not what was written: its digest differs")
    return {name: value for name, value in record.items() if name != SEAL}


def _is_digest(value: Any) -> bool:
    """Whether a value looks like a digest."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_file(path: epath.PathLike) -> bool:
    """Returns whether a path is of a file: no folder, and no device or pipe, which might never end or never begin."""
    text = os.fspath(path)
    return epath.Path(text).is_file() if "://" in text else os.path.isfile(text)


def of_files(files: Sequence[epath.PathLike], whole_bytes: int = WHOLE_BYTES) -> str | None:
    """Returns a digest of the contents of files in their order, whatever they are called.

    Args:
      files: Paths; local or gs://.
      whole_bytes: Up to this size in all every byte counts. Beyond, each file has an equal share of it: a larger one
        enters by its size and by blocks that are evenly spaced from its first byte to its last, so that a change
        between them that keeps the size is not seen.

    Returns:
      64 hexadecimal digits; None if one of them is no file.
    """
    found = [epath.Path(file) for file in files]
    if not found or not all(map(is_file, found)):
        return None
    sizes = [file.stat().length for file in found]
    share = None if sum(sizes) <= whole_bytes else max(whole_bytes // len(found), _BLOCK_BYTES)
    with futures.ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(_of_file, found, sizes, [share] * len(found))
        return of_bytes("\n".join(digests))


def of_folder(folder: epath.PathLike, whole_bytes: int = WEIGHTS_BYTES) -> str | None:
    """Returns a digest of the files in a folder, by name and as `of_files` reads them; None if there are none.

    Args:
      folder: Local, with all that lies below it; or in an object store, where each folder is a request: there the files
        that lie in the folder itself.
      whole_bytes: As of `of_files`.
    """
    folder = epath.Path(folder)
    found = folder.iterdir() if "://" in str(folder) else files_below(folder)
    files = sorted(filter(is_file, found)) if folder.is_dir() else []
    names = [str(path.relative_to(folder)) for path in files]
    return of_bytes("\n".join([*names, str(of_files(files, whole_bytes))])) if files else None


def files_below(folder: epath.Path) -> Iterator[epath.Path]:
    """Yields all files below a folder, each folder in the order of its names."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _of_file(file: epath.Path, size: int, share: int | None) -> str:
    """The digest of one file, of which at most `share` bytes are read."""
    with file.open("rb") as stream:
        if share is None or size <= share:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        digest = hashlib.sha256(str(size).encode())
        for start in np.linspace(0, size - _BLOCK_BYTES, max(2, share // _BLOCK_BYTES), dtype=int):
            stream.seek(int(start))
            digest.update(stream.read(_BLOCK_BYTES))
        return digest.hexdigest()


def difference(recorded: Any, present: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Returns the first part in which two descriptions differ: its name, what was recorded, what is there now.

    Args:
      recorded: What `describe` returned then, from a JSON file or not.
      present: What it returns now; its order decides which part is the first.
      name: Name of the whole.
    """
    if _without_none(recorded) == _without_none(present):
        return None
    is_short = name and len(f"{recorded}{present}") <= _MAX_CHARACTERS
    if isinstance(recorded, Mapping) and isinstance(present, Mapping) and not is_short:
        pairs = {key: (recorded.get(key), present.get(key)) for key in {**present, **recorded}}
        parts = ((f"{name}, {key}" if name else str(key), pair) for key, pair in pairs.items())
        return next(found for part, pair in parts if (found := difference(*pair, part)))
    if isinstance(recorded, list) and isinstance(present, list) and not is_short:
        items = enumerate(itertools.zip_longest(recorded, present))
        return next(found for n, pair in items if (found := difference(*pair, f"{name}[{n}]")))
    return name, recorded, present


def _without_none(value: Any) -> Any:
    """A description without fields, and last parts, that are None: an earlier version may not have had them."""
    if isinstance(value, list):
        parts = [_without_none(item) for item in value]
        while parts and parts[-1] is None:
            parts.pop()
        return parts
    if isinstance(value, Mapping):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    return value


def describe(value: Any, _inside: tuple[int, ...] = ()) -> Any:
    """Returns JSON that is the same for equal settings, arrays and functions, and for no others as far as can be told.

    A function of an installed package, this one included, is known by its name and by the values it was made with. One
    of the user's is known by its text too, and by the functions and plain values of its module that the text names.
    What is reached otherwise (by a class's methods, in another file, over the network, from a random source) is not
    compared.

    Args:
      value: Anything.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= _MAX_CHARACTERS else f"SHA-256 {of_bytes(value)}"
    if isinstance(value, bytes):
        return f"SHA-256 {of_bytes(value)}"
    if id(value) in _inside:
        return "itself"
    inside = (*_inside, id(value))
    if isinstance(value, Mapping):
        return {str(key): describe(item, inside) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item, inside) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((describe(item, inside) for item in value), key=json.dumps)
    if isinstance(value, functools.partial):
        parts = {"of": value.func, "arguments": value.args, **value.keywords}
        return describe(parts, inside)
    if isinstance(value, types.MethodType):
        return describe({"of": value.__func__, "self": value.__self__}, inside)
    if isinstance(value, types.FunctionType):
        return _describe_function(value, inside)
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
        return _name_of(value)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        return f"{array.dtype}{list(array.shape)} SHA-256 {of_bytes(array.tobytes())}"
    return {"kind": _name_of(type(value)), **_fields_of(value, inside)}


def _fields_of(value: Any, inside: tuple[int, ...]) -> dict[str, Any]:
    """What an object holds."""
    if dataclasses.is_dataclass(value):
        held = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.compare}
    elif hasattr(value, "__dict__") and _is_users(type(value)):
        held = vars(value)
    else:
        # Of other packages' objects what they show, without addresses, which differ between runs.
        held = {"value": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}
    return {name: describe(item, inside) for name, item in held.items()}


def _describe_function(fn: types.FunctionType, inside: tuple[int, ...]) -> dict[str, Any]:
    """A function by name, by what it was made with, and one of the user's by its text."""
    described: dict[str, Any] = {"name": _name_of(fn)}
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
    held = {name: cell.cell_contents for name, cell in cells.items() if _is_filled(cell)}
    if _is_users(fn):
        held |= {"defaults": [fn.__defaults__, fn.__kwdefaults__]}
        try:
            described["text"] = describe(inspect.getsource(fn))
        except (OSError, TypeError):
            described["text"] = describe(fn.__code__.co_code)
        named = {n: fn.__globals__[n] for n in fn.__code__.co_names if n in fn.__globals__}
        held |= {
            name: item
            for name, item in named.items()
            if isinstance(item, _PLAIN)
            or (isinstance(item, types.FunctionType) and _is_users(item))
        }
    return {**described, **{name: describe(item, inside) for name, item in held.items()}}


def _is_filled(cell: types.CellType) -> bool:
    """Whether a variable of an enclosing function has a value."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _is_users(value: Any) -> bool:
    """Whether a function or class is of no installed package."""
    if (value.__module__ or "").partition(".")[0] in (_PACKAGE, "builtins"):
        return False
    code = getattr(value, "__code__", None)
    module = sys.modules.get(value.__module__)
    file = code.co_filename if code else str(getattr(module, "__file__", None))
    return not file.startswith(_STDLIB) and _INSTALLED.search(file) is None


def _name_of(value: Any) -> str:
    """Module and name of a class or function; of this package's the name alone, since its modules may move."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", str(value))
    module = getattr(value, "__module__", None) or ""
    return name if module.partition(".")[0] in ("", _PACKAGE) else f"{module}.{name}"
