"""Rows that began apart, each with what it asks for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.decoding.rows import Rows, decode_steps

VOCAB, EOS, STEPS = 16, 1, 6


def rows_of(*rows):
    """(live, token, position, limit, temperature, top_p, seed, tells) of each row."""
    dtypes = (bool, np.int32, np.int32, np.int32, np.float32, np.float32, np.uint32, bool)
    columns = zip(*rows, strict=True)
    return Rows(*(np.asarray(x, d) for x, d in zip(columns, dtypes, strict=True)))


@functools.cache
def logits():
    """Logits of the next token for each last token; after 5 comes the end."""
    made = np.random.default_rng(0).normal(0, 2, (VOCAB, VOCAB)).astype(np.float32)
    made[:, EOS] = -9
    made[5, EOS] = 9
    return made


@functools.cache
def program():
    def step(ids, cache):
        return jnp.take(logits(), ids[:, 0], axis=0), cache + jnp.int32(1)

    def run(rows, steps, stops_early):
        settings = {"most_steps": STEPS, "eos_id": EOS, "alternatives": 2}
        return decode_steps(
            step, jnp.int32(0), rows, steps=steps, stops_early=stops_early, **settings
        )

    return jax.jit(run)


def run(rows, steps=STEPS, *, stops_early=False):
    cache, decoded = program()(rows, np.int32(steps), np.bool_(stops_early))
    assert int(cache) == int(decoded.steps)
    return jax.tree.map(np.asarray, decoded)


def test_each_row_has_its_temperature_its_limit_and_its_likeliest_tokens():
    log_probs = np.asarray(jax.nn.log_softmax(logits(), axis=-1))
    greedy = (True, 3, 0, STEPS, 0.0, 1.0, 0, False)
    decoded = run(rows_of(greedy, (True, 3, 2, STEPS, 1.0, 0.5, 7, True), (False, *greedy[1:])))
    token = 3
    for step in range(int(decoded.steps)):
        np.testing.assert_allclose(
            decoded.log_probs[step, 0], log_probs[token, decoded.ids[step, 0]], rtol=1e-5
        )
        assert decoded.ids[step, 0] == decoded.top_ids[step, 0, 0] == logits()[token].argmax()
        best = np.sort(log_probs[token])[::-1][:2]
        np.testing.assert_allclose(decoded.top_log_probs[step, 0], best, rtol=1e-5)
        if decoded.ids[step, 0] == EOS:
            break
        token = decoded.ids[step, 0]
    assert not run(rows_of(greedy)).top_ids.any()
    assert run(rows_of((*greedy[:3], 2, *greedy[4:]))).steps == 2
    assert run(rows_of(greedy), 3).steps == 3
    end, alive = (True, 5, 0, STEPS, 0.0, 1.0, 0, False), (True, 3, 0, STEPS, 0.0, 1.0, 0, False)
    assert run(rows_of(end, alive), stops_early=True).steps == 1
    assert run(rows_of(end, alive)).steps > 1


def test_a_draw_depends_on_seed_and_position_alone_and_keeps_to_the_nucleus():
    drawn = [(True, 3, 0, 1, 1.0, 0.5, seed, False) for seed in range(200)]
    first = run(rows_of(*drawn)).ids[0]
    np.testing.assert_array_equal(run(rows_of(*drawn[::-1])).ids[0][::-1], first)
    later = run(rows_of(*[(*row[:2], 7, 8, *row[4:]) for row in drawn])).ids[0]
    assert (later != first).any()
    probs = np.sort(np.exp(jax.nn.log_softmax(logits()[3])))[::-1]
    size = int(np.searchsorted(np.cumsum(probs), 0.5)) + 1
    nucleus = np.argsort(-logits()[3])[:size]
    assert set(first) | set(later) == set(nucleus)
    everything = run(rows_of(*[(*row[:4], 3.0, 1.0, *row[6:]) for row in drawn])).ids[0]
    assert len(set(everything)) > size
