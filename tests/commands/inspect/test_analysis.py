"""Prompts with planted structure: words, clusters, class labels, shared neighbours; chance for random ones."""

import numpy as np
import pytest

from prompt_tuning.commands.inspect import analysis, neighbours
from tests.commands.inspect import planted

TOP = 5


def analyse(prompt, tokens, labels=None, top=TOP):
    return analysis.analyse([prompt], tokens, top=top, labels=labels or {})[0]


def test_a_prompt_made_of_words_finds_them():
    tokens = planted.make_tokens()
    ids = [3, 17, 999, 500, 3]
    found = analyse(planted.near(tokens.table, ids, noise=0.3), tokens)
    assert found.nearest.ids[:, 0].tolist() == ids
    # Noise of 0.3 of the length, at a right angle or nearly so.
    np.testing.assert_allclose(found.nearest.distances[:, 0], 1 - 1 / np.hypot(1, 0.3), atol=0.02)
    assert found.nearest.distances[:, 1].min() > 0.3
    norms = 5 * np.linalg.norm(tokens.table[ids], axis=1)
    np.testing.assert_allclose(found.norms, norms * np.hypot(1, 0.3), rtol=0.06)


def test_rows_of_the_table_that_are_no_token_are_never_neighbours():
    tokens = planted.make_tokens(size=50)
    found = analyse(planted.near(tokens.table, range(50, 50 + planted.PADDING)), tokens)
    assert found.nearest.ids.max() < 50
    assert found.nearest.distances.min() > 0.3


def test_several_prompts_are_the_same_as_one_at_a_time():
    tokens = planted.make_tokens()
    prompts = [planted.near(tokens.table, ids) for ids in ([1, 2, 3], [4], [5, 6])]
    together = analysis.analyse(prompts, tokens, top=TOP, labels={})
    assert len(together) == 3
    for prompt, one in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(one.nearest.ids, analyse(prompt, tokens).nearest.ids)
        np.testing.assert_array_equal(one.prompt, prompt)


def test_tokens_that_lie_together_are_a_cluster_and_others_are_not():
    rng = np.random.default_rng(7)
    table = planted.make_table(1000, rng)
    together = [10, 20, 30, 40, 50]
    table[together] = planted.near(table, [10] * 5, noise=0.5, scale=1.0)
    tokens = planted.make_tokens(table=table)
    elsewhere = rng.standard_normal(planted.WIDTH).astype(np.float32)
    found = analyse(np.stack([table[together].mean(axis=0), elsewhere]), tokens)
    assert sorted(found.clusters[0]) == together
    assert len(found.clusters[1]) == 1
    assert found.near_one_another[0] > 0.6 > 0.3 > found.near_one_another[1]
    assert found.figures()["cluster_size"] == 3


def test_words_that_are_spelt_alike_are_a_cluster_wherever_they_lie():
    # Planted at angles from the row that leave the words themselves far from one another.
    rng = np.random.default_rng(7)
    table = planted.make_table(1000, rng)
    row = neighbours.unit(table[10])
    others = table[[20, 30]] - (table[[20, 30]] @ row)[:, None] * row
    others = neighbours.unit(others)
    table[10], table[20], table[30] = row, row + 2 * others[0], row - 2 * others[0]
    words = {10: "▁technology", 20: "Technologies", 30: "▁unlike"}
    tokens = planted.make_tokens(words=words, table=table)
    assert neighbours.unit(table[20]) @ neighbours.unit(table[30]) < 0
    found = analyse(10 * row[None], tokens, top=3)
    assert set(found.clusters[0]) >= {10, 20}
    assert analysis.spelt_alike("▁technological", "Technologies")
    assert analysis.spelt_alike("▁Up", "up")
    assert not analysis.spelt_alike("▁interest", "international")
    assert not analysis.spelt_alike("▁in", "▁is")


def test_rows_that_share_neighbours_are_counted_and_grouped():
    tokens = planted.make_tokens()
    ids = [1, 2, 1, 3, 2, 1, 4]
    found = analyse(planted.near(tokens.table, ids), tokens, top=1)
    assert found.groups == [[0, 2, 5], [1, 4]]
    assert found.figures()["sharing_rows"] == 5


def test_class_labels_are_counted_in_their_row_and_anywhere():
    tokens = planted.make_tokens()
    labels = {"w11": [11], "w12": [12], "w13 w14": [13, 14], "w15 w16": [15, 16], "w18": [18]}
    means = {name: tokens.table[ids].mean(axis=0) for name, ids in labels.items()}
    # The first and third stay in their rows, the second moved to row 3, the others are gone.
    rows = np.stack(
        [means["w11"], tokens.table[500], means["w13 w14"], means["w12"], tokens.table[501]]
    )
    prompt = 3 * rows
    found = analyse(prompt, tokens, labels)
    assert found.found_in == {"w11": [0], "w12": [3], "w13 w14": [2], "w15 w16": [], "w18": []}
    figures = found.figures()
    assert (figures["labels_in_own_row"], figures["labels_anywhere"]) == (2, 3)
    assert "labels_anywhere" not in analyse(prompt, tokens).figures()


def test_a_label_of_several_tokens_needs_its_own_vector_near_not_only_its_tokens():
    tokens = planted.make_tokens()
    found = analyse(planted.near(tokens.table, [13], noise=0), tokens, {"w13 w14": [13, 14]}, top=1)
    assert found.nearest.ids.tolist() == [[13]] and found.found_in == {"w13 w14": []}


def test_the_distance_to_the_start_is_measured_by_row():
    tokens = planted.make_tokens()
    start = 2 * tokens.table[[1, 2, 3, 4]]
    prompt = start.copy()
    prompt[1] = -start[1]
    prompt[2] *= 3
    pair = analysis.analyse([prompt, start], tokens, top=TOP, labels={})
    figures = pair[0].figures_from(pair[1])
    lengths = np.linalg.norm(start, axis=1)
    assert figures["moved"] == pytest.approx((2 * lengths[1] + 2 * lengths[2]) / 4, rel=1e-5)
    # One row of four turned around, which is a cosine distance of 2.
    assert figures["turned"] == pytest.approx(0.5, abs=1e-5)
    assert figures["kept_nearest"] == 3
    assert pair[1].figures_from(pair[1])["moved"] == 0


def test_random_prompts_have_the_norms_and_find_labels_by_chance_alone():
    tokens = planted.make_tokens()
    prompt = planted.near(tokens.table, range(100))
    draws = analysis.random_prompts(prompt, draws=20, seed=0)
    labels = {f"w{token}": [token] for token in range(200, 220)}
    found = analysis.analyse(draws, tokens, top=TOP, labels=labels)
    for draw in draws:
        np.testing.assert_allclose(
            np.linalg.norm(draw, axis=1), np.linalg.norm(prompt, axis=1), rtol=1e-5
        )
    assert not np.allclose(draws[0], draws[1])
    hits = np.array([sum(map(len, one.found_in.values())) for one in found])
    # 20 labels x 100 rows x 5 of 1,000 tokens: 10 expected of each draw, 20 draws.
    assert abs(hits.mean() - 10) < 4 * hits.std(ddof=1) / np.sqrt(20)
    own = np.array([one.figures()["labels_in_own_row"] for one in found])
    assert own.mean() < 0.5
    # Planted words are much nearer than random vectors come to any of the thousand.
    planted_distance = analyse(prompt, tokens).figures()["nearest_distance"]
    random_distances = [one.figures()["nearest_distance"] for one in found]
    assert planted_distance < 0.05 < 0.5 < min(random_distances)
    again = analysis.random_prompts(prompt, draws=20, seed=0)
    np.testing.assert_array_equal(draws[3], again[3])
