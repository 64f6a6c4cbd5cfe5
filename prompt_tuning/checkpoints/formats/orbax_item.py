"""The arrays of one Orbax item, such as a state: names from its file `_METADATA`, shapes from the arrays' own headers.

They are zarr, `{path with dots}`, in one OCDBT database or, before July 2024, in a folder each.
"""

# Not through Orbax's own `metadata()`: for each array it opens a file more than this does and takes four to fifteen
# times as long, which counts where there are thousands, and threads of its own complain when a file is missing.

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorstore
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats.arrays import StoredArray, in_database, size_of_files
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError

LEAVES_FILE = "_METADATA"
_DATABASE = "manifest.ocdbt"
# Arrays whose headers are read at any time.
_HEADERS_AT_ONCE = 64

_T = TypeVar("_T")


def read_leaves(
    item: epath.Path, damaged: Callable[[object], CheckpointError]
) -> dict[str, StoredArray]:
    """Returns all arrays of an item by their `/`-joined names, sorted; reads no array.

    Args:
      item: Directory of the item; local or gs://.
      damaged: Makes the error from what is wrong.
    """
    names = _read_names(item, damaged)
    of_name = in_database if (item / _DATABASE).is_file() else _in_folder
    leaves: dict[str, StoredArray] = {}
    context = tensorstore.Context()
    for first in range(0, len(names), _HEADERS_AT_ONCE):
        some = sorted(names)[first : first + _HEADERS_AT_ONCE]
        stores = {name: of_name(item, names[name]) for name in some}
        try:
            for kvstore in stores.values():
                size_of_files(kvstore)
        except (OSError, ValueError) as e:
            raise damaged(e) from e
        opening = {
            name: tensorstore.open(
                {"driver": "zarr", "kvstore": kvstore}, open=True, read=True, context=context
            )
            for name, kvstore in stores.items()
        }
        for name, future in opening.items():
            try:
                store = future.result()
            except (OSError, ValueError) as e:
                raise damaged(f"{name}: {e}") from e
            shape, dtype = tuple(store.shape), store.dtype.numpy_dtype
            leaves[name] = StoredArray(stores[name], shape, dtype)
    return leaves


def below(prefix: str, named: Mapping[str, _T]) -> dict[str, _T]:
    """Returns the entries whose names begin with `prefix`, by what follows it."""
    return {k.removeprefix(prefix): v for k, v in named.items() if k.startswith(prefix)}


def _read_names(item: epath.Path, damaged: Callable[[object], CheckpointError]) -> dict[str, str]:
    """The names of all arrays, and what they are called on disk: joined by dots, though parts may have a `/`."""
    try:
        if not content.is_file(item / LEAVES_FILE):
            raise FileNotFoundError(LEAVES_FILE)
        leaves = json.loads((item / LEAVES_FILE).read_text())["tree_metadata"].values()
        keys = [
            [str(key["key"]) for key in leaf["key_metadata"]]
            for leaf in leaves
            # None and empty dicts have no array: MultiOptimizer's state of a parameter that it did not train.
            if not leaf["value_metadata"].get("skip_deserialize", False)
        ]
        return {"/".join(parts): ".".join(parts) for parts in keys}
    except FileNotFoundError as e:
        raise damaged(f"no file {item.name}/{LEAVES_FILE}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise damaged(f"{item.name}/{LEAVES_FILE}: {type(e).__name__}: {e}") from e


def _in_folder(item: epath.Path, stored: str) -> dict[str, Any]:
    """TensorStore's name for an array in a folder of its own."""
    return paths.kvstore(item / stored)
