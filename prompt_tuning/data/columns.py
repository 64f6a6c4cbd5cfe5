"""Raw examples as columns, nested and of varying length where TensorFlow Datasets has them so."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Feature name -> one entry per example; of a nested feature, the columns of its parts.
Columns = dict[str, Any]


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Returns the columns of examples.

    Args:
      rows: Examples as TensorFlow Datasets would hold them, all with the same features: text, numbers, lists of them,
        and dicts of these.

    Returns:
      {name: [n]}: text as UTF-8 bytes, `label` as int64, other integers as int32, numbers as float32, truth values as
      bool; lists as objects.
    """
    return {
        name: from_rows([row[name] for row in rows])
        if isinstance(first, Mapping)
        else _column(name, [row[name] for row in rows])
        for name, first in rows[0].items()
    }


def take(columns: Columns, order: np.ndarray) -> Columns:
    """Returns the examples at the positions `order`, an [m] array of int."""
    return tf.nest.map_structure(lambda column: column[order], columns)


def row(columns: Columns, index: int) -> dict[str, Any]:
    """Returns one example as tensors, as `as_dataset` has them."""
    one = take(columns, np.array([index]))
    return tf.nest.map_structure(lambda column: _tensor(column)[0], one)


def length(columns: Columns) -> int:
    """Returns the number of examples."""
    return len(tf.nest.flatten(columns)[0])


def as_dataset(columns: Columns) -> tf.data.Dataset:
    """Returns a dataset of the examples, with the structure and types of TensorFlow Datasets.

    Args:
      columns: At least one.
    """
    ds = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(_tensor, columns))
    # Elements of ragged columns become plain tensors as soon as a function has returned them.
    return ds.map(lambda example: example, num_parallel_calls=1)


def _column(name: str, values: list[Any]) -> np.ndarray:
    """Returns the values as an array of TensorFlow Datasets' type."""
    first = values[0]
    if isinstance(first, str | list):
        column = np.empty(len(values), dtype=object)
        for i, value in enumerate(values):
            is_text = isinstance(value, str)
            column[i] = value.encode() if is_text else _column(name, value) if value else []
        return column
    if isinstance(first, bool | float):
        return np.array(values, dtype=bool if isinstance(first, bool) else np.float32)
    return np.array(values, dtype=np.int64 if name == "label" else np.int32)


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
