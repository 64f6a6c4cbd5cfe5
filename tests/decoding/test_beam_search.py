import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.decoding.beam_search import NO_SEQUENCE, BeamSearch, brevity_penalty
from prompt_tuning.decoding.greedy import Greedy
from tests.decoding import stand_in

T5X_CASES = [case for case in stand_in.CASES if case["fn"] == "beam_search"]


def search(decoder, max_decode_length, num_decodes=4, alpha=0.6, **kwargs):
    run = jax.jit(
        lambda cache: BeamSearch(num_decodes, alpha)(
            decoder, cache, batch_size=stand_in.BATCH, max_decode_length=max_decode_length, **kwargs
        )
    )
    ids, scores = run(decoder.cache())
    assert ids.dtype == jnp.int32
    assert scores.dtype == jnp.float32
    return np.asarray(ids), np.asarray(scores)


@pytest.mark.parametrize("case", T5X_CASES, ids=lambda case: case["name"])
def test_t5x_finds_the_same_sequences(case):
    golden = stand_in.load()
    ids, scores = search(
        stand_in.Decoder(), case["T"], num_decodes=case["num_decodes"], alpha=case["alpha"]
    )
    np.testing.assert_array_equal(ids, golden[f"{case['name']}/ids"])
    np.testing.assert_allclose(scores, golden[f"{case['name']}/scores"], rtol=1e-5)


def test_the_cases_cover_finished_unfinished_and_empty_slots():
    assert len(T5X_CASES) == 15
    golden = stand_in.load()
    scores = golden["beam4_alpha0.6_len9/scores"]
    ids = golden["beam4_alpha0.6_len9/ids"]
    empty = scores == NO_SEQUENCE
    assert 0 < empty.sum() < scores.size
    assert not ids[empty].any()
    assert any(
        not (golden[f"{case['name']}/ids"] == stand_in.EOS).any(axis=(1, 2)).all()
        for case in T5X_CASES
    )


def test_scanned_caches_have_the_batch_on_axis_1():
    plain = search(stand_in.Decoder(), 9, num_decodes=4)
    scanned = search(stand_in.Decoder(batch_axis=1), 9, num_decodes=4, cache_batch_axis=1)
    np.testing.assert_array_equal(plain[0], scanned[0])
    np.testing.assert_allclose(plain[1], scanned[1], rtol=1e-6)


def test_wide_beams_find_the_best_of_all_sequences():
    length, alpha = 3, 0.6
    decoder = stand_in.Decoder()
    ids, scores = search(decoder, length, num_decodes=12**2, alpha=alpha)
    vocab = range(12)
    compared = 0
    best = np.full(stand_in.BATCH, -np.inf)
    best_ids = np.zeros((stand_in.BATCH, length), np.int32)
    for size in range(1, length + 1):
        for prefix in itertools.product([t for t in vocab if t != stand_in.EOS], repeat=size - 1):
            sequence = np.zeros(length, np.int32)
            sequence[:size] = [*prefix, stand_in.EOS]
            targets = np.tile(sequence, (stand_in.BATCH, 1))
            log_probs = np.asarray(jax.nn.log_softmax(decoder.teacher_forcing(targets), axis=-1))
            total = sum(log_probs[:, t, sequence[t]] for t in range(size))
            score = total / ((5 + size) / 6) ** alpha
            better = score > best
            best[better], best_ids[better] = score[better], sequence
            compared += 1
    assert compared == 1 + 11 + 121
    np.testing.assert_array_equal(ids[:, -1], best_ids)
    np.testing.assert_allclose(scores[:, -1], best, rtol=1e-5)


def test_results_ascend_and_end_with_eos():
    ids, scores = search(stand_in.Decoder(), 9, num_decodes=4)
    assert (np.diff(scores, axis=1) >= 0).all()
    stand_in.check_ends(ids)


def test_one_beam_is_not_greedy_but_never_worse():
    decoder = stand_in.Decoder()
    greedy_ids, greedy_scores = Greedy()(
        decoder, decoder.cache(), batch_size=stand_in.BATCH, max_decode_length=9
    )
    greedy_ids, greedy_scores = greedy_ids[:, 0], greedy_scores[:, 0]
    ids, scores = search(decoder, 9, num_decodes=1, alpha=0.0)
    # Each position offers two candidates, and an EOS that is only second best still finishes a sequence.
    ended = np.asarray(greedy_ids == stand_in.EOS).any(axis=1)
    assert ended.sum() == 3
    assert (scores[ended, 0] >= np.asarray(greedy_scores)[ended] - 1e-5).all()
    assert not np.array_equal(ids[:, 0], greedy_ids)


def test_the_penalty_counts_eos():
    np.testing.assert_allclose(brevity_penalty(2, 0.6), (7 / 6) ** 0.6, rtol=1e-6)
    assert float(brevity_penalty(9, 0.0)) == 1.0
    np.testing.assert_allclose(brevity_penalty(jnp.asarray(1, jnp.int32), 0.6), 1.0)


def test_the_search_stops_by_the_penalty_of_one_position_more_than_there_is():
    calls = []
    first = np.full(30, np.log((1 - np.exp(-1.0) - np.exp(-1.4)) / 28))
    first[[1, 5]] = [-1.0, -1.4]
    table = np.stack([first, np.where(np.arange(30) == 1, 0.0, -20.0)]).astype(np.float32)

    def tokens_to_logits(ids, position):
        jax.debug.callback(lambda p: calls.append(int(p)), position)
        return jnp.asarray(table)[jnp.minimum(position, 1)][None], position + 1

    ids, scores = BeamSearch(num_decodes=1, alpha=1.0)(
        tokens_to_logits, jnp.zeros((), jnp.int32), batch_size=1, max_decode_length=3
    )
    jax.effects_barrier()
    # After one position -1.0 is finished and -1.4 alive: -1.4 / (9 / 6) could win, -1.4 / (8 / 6) could not.
    assert calls == [0, 1]
    np.testing.assert_array_equal(ids, [[[1, 0, 0]]])
    np.testing.assert_allclose(scores, [[-1.0]], rtol=1e-5)
