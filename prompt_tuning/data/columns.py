"""Raw examples as columns, nested and of varying length where TensorFlow Datasets has them so."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Feature name -> one entry per example; the parts of a nested feature are joined by "/".
Columns = dict[str, np.ndarray]


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Returns the columns of examples.

    Args:
      rows: Examples as TensorFlow Datasets would hold them, all with the same features: text, numbers, lists of them,
        and dicts of these.

    Returns:
      {name: [n]}: text as UTF-8 bytes, `label` as int64, other integers as int32, numbers as float32; lists as objects.
    """
    flat = [dict(_flatten(row)) for row in rows]
    return {name: _column(name, [row[name] for row in flat]) for name in flat[0]}


def take(columns: Columns, order: np.ndarray) -> Columns:
    """Returns the examples at the positions `order`, an [m] array of int."""
    return {name: column[order] for name, column in columns.items()}


def length(columns: Columns) -> int:
    """Returns the number of examples."""
    return len(next(iter(columns.values())))


def as_dataset(columns: Columns) -> tf.data.Dataset:
    """Returns a dataset of the examples, with the structure and types of TensorFlow Datasets.

    Args:
      columns: At least one.
    """
    tensors: Any = {}
    for name, column in columns.items():
        *outer, last = name.split("/")
        level: Any = tensors
        for part in outer:
            level = level.setdefault(part, {})
        level[last] = _tensor(column)
    # Elements of ragged columns become plain tensors as soon as a function has returned them.
    return tf.data.Dataset.from_tensor_slices(tensors).map(_same, num_parallel_calls=1)


def _same(example: dict[str, Any]) -> dict[str, Any]:
    """Returns its argument."""
    return example


def _flatten(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of every leaf."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _column(name: str, values: list[Any]) -> np.ndarray:
    """Returns the values as an array of TensorFlow Datasets' type."""
    if isinstance(values[0], str | list):
        column = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            is_text = isinstance(value, str)
            column[i] = value.encode() if is_text else _column(name, value) if value else []
        return column
    kind = np.float32 if isinstance(values[0], float) else np.int64 if name == "label" else np.int32
    return np.array(values, dtype=kind)


def _tensor(column: np.ndarray) -> Any:
    """Returns a column as a tensor, ragged where its entries are lists."""
    if column.dtype != object:
        return column
    if isinstance(column[0], bytes):
        # Object arrays of bytes become string tensors only through a list.
        return tf.constant(column.tolist(), tf.string)
    flat = [item for items in column for item in items]
    is_text = not flat or isinstance(flat[0], bytes)
    values = tf.constant(flat, tf.string if is_text else tf.int32)
    ragged: Any = tf.RaggedTensor
    return ragged.from_row_lengths(values, [len(items) for items in column])
