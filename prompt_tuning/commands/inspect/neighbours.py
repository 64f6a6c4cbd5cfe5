"""Nearest tokens of vectors by cosine distance, and which things are connected."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csgraph


class Neighbours(NamedTuple):
    """The nearest tokens of N vectors, nearest first.

    Attributes:
      ids: [N, k] int, token ids.
      distances: [N, k] float32, cosine distances, 0 (same direction) to 2.
    """

    ids: Int[np.ndarray, "N k"]
    distances: Float[np.ndarray, "N k"]


def unit(vectors: Float[np.ndarray, "N H"]) -> Float[np.ndarray, "N H"]:
    """Returns vectors at length 1; zero vectors stay zero, at cosine 0 to everything."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms == 0, 1, norms)


def find_nearest(
    vectors: Float[np.ndarray, "N H"],
    blocks: Iterable[tuple[int, Float[np.ndarray, "rows H"]]],
    top: int,
) -> Neighbours:
    """Returns the nearest tokens of each vector.

    Args:
      vectors: [N, H] float32.
      blocks: (first id, embeddings [rows, H] float32) of all tokens, each once. Only one block is compared at a time.
      top: k, neighbours of each vector; at most the number of tokens.

    Returns:
      The nearest k; equal distances in the order of ids.

    Source: Lester et al. 2021, section 7 (cosine distance to the frozen model's vocabulary).
    """
    units = unit(vectors)
    ids = np.zeros((len(vectors), 0), np.int64)
    cosines = np.zeros((len(vectors), 0), np.float32)
    for start, rows in blocks:
        found = units @ unit(rows).T
        best = np.argpartition(-found, min(top, len(rows)) - 1, axis=1)[:, :top]
        ids = np.concatenate([ids, best + start], axis=1)
        cosines = np.concatenate([cosines, np.take_along_axis(found, best, axis=1)], axis=1)
        order = np.lexsort((ids, -cosines), axis=1)[:, :top]
        ids = np.take_along_axis(ids, order, axis=1)
        cosines = np.take_along_axis(cosines, order, axis=1)
    # Rounding may put a cosine above 1.
    return Neighbours(ids, np.maximum(1 - cosines, 0))


def components(linked: Bool[np.ndarray, "N N"]) -> list[list[int]]:
    """Returns the connected components of a symmetric relation, largest first, members in order."""
    count, component = csgraph.connected_components(linked, directed=False)
    found = [np.flatnonzero(component == number).tolist() for number in range(count)]
    return sorted(found, key=len, reverse=True)
