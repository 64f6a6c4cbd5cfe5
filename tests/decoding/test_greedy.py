import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.decoding.greedy import Greedy
from tests.decoding import stand_in

# T5X's scores are met to a part in a million, which takes its compiler settings; conftest.py sets others.
AS_T5X = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


def decode(decoder, max_decode_length, **kwargs):
    run = jax.jit(
        lambda cache: Greedy()(
            decoder, cache, batch_size=stand_in.BATCH, max_decode_length=max_decode_length, **kwargs
        ),
        compiler_options=AS_T5X,
    )
    ids, scores = run(decoder.cache())
    assert ids.dtype == jnp.int32
    assert scores.dtype == jnp.float32
    return np.asarray(ids[:, 0]), np.asarray(scores[:, 0])


@pytest.mark.parametrize("max_decode_length", [1, 4, 9, 16])
def test_tokens_are_the_argmax_of_teacher_forcing(max_decode_length):
    decoder = stand_in.Decoder()
    ids, scores = decode(decoder, max_decode_length)
    assert ids.shape == (stand_in.BATCH, max_decode_length)
    logits = decoder.teacher_forcing(ids)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    compared = 0
    for row in range(stand_in.BATCH):
        total = 0.0
        for position, token in enumerate(ids[row]):
            assert token == np.argmax(logits[row, position])
            total += float(log_probs[row, position, token])
            compared += 1
            if token == stand_in.EOS:
                break
        np.testing.assert_allclose(scores[row], total, rtol=1e-5)
    assert compared >= stand_in.BATCH
    stand_in.check_ends(ids)


def test_t5x_decodes_the_same():
    golden = stand_in.load()
    ids, scores = decode(stand_in.Decoder(), 9)
    for name in ("greedy", "cold"):
        np.testing.assert_array_equal(ids, golden[f"{name}/ids"][:, 0])
        np.testing.assert_allclose(scores, golden[f"{name}/scores"][:, 0], rtol=1e-6)
    assert (ids == stand_in.EOS).any(axis=1).sum() == 3, "rows that end and rows that do not"


def test_one_beam_scores_are_greedy_scores_by_the_penalty():
    golden = stand_in.load()
    ids, scores = decode(stand_in.Decoder(), 9)
    compared = 0
    for row in range(stand_in.BATCH):
        if not np.array_equal(ids[row], golden["beam1_alpha0.6_len9/ids"][row, 0]):
            continue  # One beam searches on after the first EOS, so it may find a better sequence.
        ended = stand_in.EOS in ids[row]
        length = np.argmax(ids[row] == stand_in.EOS) + 1
        penalty = ((5 + length) / 6) ** 0.6 if ended else 1.0
        np.testing.assert_allclose(
            golden["beam1_alpha0.6_len9/scores"][row, 0], scores[row] / penalty, rtol=1e-5
        )
        compared += 1
    assert compared >= 2


def counting(sequences):
    """A decoder that spells out `sequences` [B, T] and counts its calls in the cache."""
    table = jnp.asarray(sequences)

    def tokens_to_logits(ids, calls):
        return jax.nn.one_hot(table[:, calls % table.shape[1]], 7) * 10.0, calls + 1

    return tokens_to_logits


def number_of_calls(sequences, max_decode_length):
    """Returns how often the decoder ran, seen from the ids it was fed."""
    seen = []

    def tokens_to_logits(ids, cache):
        jax.debug.callback(lambda i: seen.append(np.asarray(i)), ids)
        return counting(sequences)(ids, cache)

    ids, _ = Greedy()(
        tokens_to_logits,
        jnp.zeros((), jnp.int32),
        batch_size=len(sequences),
        max_decode_length=max_decode_length,
    )
    ids.block_until_ready()
    jax.effects_barrier()
    return len(seen), np.asarray(ids[:, 0])


def test_decoding_stops_when_every_row_has_ended():
    calls, ids = number_of_calls([[5, 1, 4, 4], [5, 3, 1, 6]], 50)
    assert calls == 3
    np.testing.assert_array_equal(ids[:, :4], [[5, 1, 0, 0], [5, 3, 1, 0]])
    assert not ids[:, 4:].any()


def test_decoding_stops_at_the_maximum_length():
    calls, ids = number_of_calls([[5, 1, 4], [5, 3, 2]], 3)
    assert calls == 3
    np.testing.assert_array_equal(ids, [[5, 1, 0], [5, 3, 2]])


def test_eos_of_another_vocabulary():
    decoder = stand_in.Decoder()
    ids, _ = decode(decoder, 9, eos_id=10)
    ended = np.cumsum(ids == 10, axis=-1) - (ids == 10) > 0
    assert ended.any()
    assert not ids[ended].any()


def test_the_first_input_is_id_0_and_each_token_is_fed_back():
    fed = []

    def tokens_to_logits(ids, cache):
        jax.debug.callback(lambda i: fed.append(np.asarray(i)[:, 0].tolist()), ids)
        return counting([[4, 3, 1], [1, 5, 5]])(ids, cache)

    Greedy()(tokens_to_logits, jnp.zeros((), jnp.int32), batch_size=2, max_decode_length=9)[
        0
    ].block_until_ready()
    jax.effects_barrier()
    assert fed == [[0, 0], [4, 1], [3, 0]]


def test_scores_are_float32_sums_of_bfloat16_logits():
    def tokens_to_logits(ids, cache):
        logits, cache = counting([[2, 1]])(ids, cache)
        return logits.astype(jnp.bfloat16), cache

    _, scores = Greedy()(
        tokens_to_logits, jnp.zeros((), jnp.int32), batch_size=1, max_decode_length=4
    )
    expected = 2 * float(jax.nn.log_softmax(jnp.asarray([10.0] + [0.0] * 6))[0])
    np.testing.assert_allclose(scores, [[expected]], rtol=1e-3)
