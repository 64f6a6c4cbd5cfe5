"""Nearest tokens by cosine distance, block by block."""

import numpy as np
import pytest

from prompt_tuning.commands.inspect.neighbours import components, find_nearest, unit
from tests.commands.inspect.planted import make_table


def blocks(table, rows):
    return ((start, table[start : start + rows]) for start in range(0, len(table), rows))


@pytest.mark.parametrize("rows", [1, 3, 100, 500])
def test_neighbours_are_those_of_all_distances_whatever_the_blocks(rows):
    rng = np.random.default_rng(0)
    table, vectors = make_table(300, rng), make_table(20, rng)
    found = find_nearest(vectors, blocks(table, rows), 5)
    distances = 1 - unit(vectors) @ unit(table).T
    expected = np.argsort(distances, axis=1)[:, :5]
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_allclose(
        found.distances, np.take_along_axis(distances, expected, axis=1), atol=1e-6
    )


def test_length_does_not_matter_and_distances_end_at_zero_and_two():
    table = np.eye(4, 8, dtype=np.float32)
    vectors = np.stack([100 * table[2], -0.01 * table[2]])
    found = find_nearest(vectors, blocks(table, 2), 4)
    assert found.ids[0, 0] == 2 and found.distances[0, 0] == 0
    assert found.ids[1, -1] == 2 and found.distances[1, -1] == 2


def test_equal_distances_are_in_the_order_of_ids_and_zero_vectors_are_far_from_all():
    table = np.ones((6, 3), np.float32)
    table[4] = 0
    found = find_nearest(np.ones((1, 3), np.float32), blocks(table, 4), 6)
    assert found.ids.tolist() == [[0, 1, 2, 3, 5, 4]]
    assert found.distances[0, -1] == 1


def test_components_are_what_links_connect():
    linked = np.eye(6, dtype=bool)
    for a, b in ((0, 3), (3, 5), (1, 4)):
        linked[a, b] = linked[b, a] = True
    assert components(linked) == [[0, 3, 5], [1, 4], [2]]
