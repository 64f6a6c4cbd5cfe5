"""Beam search with T5X's scores, its stopping rule and its order of results."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from prompt_tuning.decoding.cache import expand_batch, gather_copies
from prompt_tuning.decoding.loop import TokensToLogits
from prompt_tuning.errors import check_count
from prompt_tuning.types import PyTree

# Score of a slot that holds no sequence. Finite, so that it survives arithmetic; T5X's value, visible in results.
NO_SEQUENCE = -1.0e7


class _Loop(NamedTuple):
    """What one position hands to the next. Beams are in ascending order, best last; K is the number of beams."""

    position: jax.Array  # [] int32, tokens decoded so far
    token: jax.Array  # [B, K] int32, the decoder's next inputs
    live_ids: jax.Array  # [B, K, T] int32, sequences without EOS
    live_log_probs: jax.Array  # [B, K] float32
    finished_ids: jax.Array  # [B, K, T] int32, sequences with EOS
    finished_scores: jax.Array  # [B, K] float32
    finished: jax.Array  # [B, K] bool, whether the slot is taken
    cache: PyTree  # of B * K rows


class _Candidates(NamedTuple):
    """The 2K best continuations of the live beams, best first."""

    ids: jax.Array  # [B, 2K, T] int32
    token: jax.Array  # [B, 2K] int32
    log_probs: jax.Array  # [B, 2K] float32
    beam: jax.Array  # [B, 2K] int32, the live beam each continues
    ended: jax.Array  # [B, 2K] bool


def brevity_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """Returns `((5 + length) / 6) ** alpha`, which log-probabilities are divided by.

    Args:
      length: Tokens in the sequence, EOS included.
      alpha: 0 for plain log-probabilities; larger values favour longer sequences.

    Source:
      Wu et al. 2016, arXiv 1609.08144, equation 14.
    """
    return jnp.power((5.0 + jnp.asarray(length, jnp.float32)) / 6.0, alpha)


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """The best sequences that a beam finds.

    A finished sequence scores its log-probability divided by the brevity penalty. The search stops when, for every row
    of the batch, all K slots are finished and the best live beam could not beat the worst of them even at full length.
    A row without any finished sequence returns its live beams, scored by plain log-probability; elsewhere empty slots
    are padding with score -1e7.

    Attributes:
      num_decodes: Beams (K).
      alpha: Exponent of the brevity penalty that log-probabilities are divided by; 0 for none.

    Raises:
      ConfigError: If there is no beam.

    Source:
      t5x:t5x/decoding.py (`beam_search`). Differs: there is no forced prefix.
    """

    num_decodes: int = 4
    alpha: float = 0.6

    def __post_init__(self) -> None:
        """Checks the number of beams."""
        check_count("decoding.beam_search.num_decodes", self.num_decodes, "sequences")

    def __call__(
        self,
        tokens_to_logits: TokensToLogits,
        cache: PyTree,
        *,
        batch_size: int,
        max_decode_length: int,
        eos_id: int = 1,
        cache_batch_axis: int = 0,
        start_id: int = 0,
        pad_id: int = 0,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns ids [B, K, T] and scores [B, K]; see `DecodeFn`."""
        shape = (batch_size, self.num_decodes)

        def step(loop: _Loop) -> _Loop:
            logits, cache = tokens_to_logits(loop.token.reshape(-1, 1), loop.cache)
            logits = logits.reshape(*shape, -1)
            candidates = _continue(loop, logits, eos_id)
            # What ended is pushed out of reach: the K live beams are taken from the others.
            live_log_probs, order = _best(
                jnp.where(
                    candidates.ended, candidates.log_probs + NO_SEQUENCE, candidates.log_probs
                ),
                self.num_decodes,
            )
            live_ids, token, beam = jax.vmap(
                lambda tree, index: jax.tree.map(lambda x: x[index], tree)
            )((candidates.ids, candidates.token, candidates.beam), order)
            finished_ids, finished_scores, finished = _finish(loop, candidates, self.alpha)
            return _Loop(
                position=loop.position + 1,
                token=token,
                live_ids=live_ids,
                live_log_probs=live_log_probs,
                finished_ids=finished_ids,
                finished_scores=finished_scores,
                finished=finished,
                # Each beam goes on from the keys and values of the beam that it continues.
                cache=gather_copies(cache, beam, batch_axis=cache_batch_axis),
            )

        cache = expand_batch(cache, batch_size, self.num_decodes, batch_axis=cache_batch_axis)
        start = _start(shape, max_decode_length, cache, start_id, pad_id)
        end = lax.while_loop(
            lambda loop: _may_improve(loop, max_decode_length, self.alpha), step, start
        )
        any_finished = jnp.any(end.finished, axis=1)
        return (
            jnp.where(any_finished[:, None, None], end.finished_ids, end.live_ids),
            jnp.where(any_finished[:, None], end.finished_scores, end.live_log_probs),
        )


def _start(shape: tuple[int, int], length: int, cache: PyTree, start_id: int, pad_id: int) -> _Loop:
    """The loop before the first of `length` positions, for [rows, beams] of `shape`."""
    ids = jnp.full((*shape, length), pad_id, jnp.int32)
    return _Loop(
        position=jnp.zeros((), jnp.int32),
        token=jnp.full(shape, start_id, jnp.int32),
        live_ids=ids,
        # All beams start alike, so only one may count: the others would return the same sequences.
        live_log_probs=jnp.full(shape, NO_SEQUENCE).at[:, 0].set(0.0),
        finished_ids=ids,
        finished_scores=jnp.full(shape, NO_SEQUENCE),
        finished=jnp.zeros(shape, jnp.bool_),
        cache=cache,
    )


def _may_improve(loop: _Loop, max_decode_length: int, alpha: float) -> jax.Array:
    """Whether another position can change the result."""
    # One position more than there is: T5X counts its start token here, and results depend on when the search stops.
    best_live = loop.live_log_probs[:, -1:] / brevity_penalty(max_decode_length + 1, alpha)
    worst_finished = jnp.min(loop.finished_scores, axis=1, keepdims=True)
    worst_finished = jnp.where(loop.finished, worst_finished, NO_SEQUENCE)
    nothing_alive = (loop.position > 0) & jnp.all(
        best_live < NO_SEQUENCE / brevity_penalty(max_decode_length + 1, alpha)
    )
    return (
        (loop.position < max_decode_length) & ~jnp.all(worst_finished > best_live) & ~nothing_alive
    )


def _continue(loop: _Loop, logits: jax.Array, eos_id: int) -> _Candidates:
    """Returns the best 2K continuations: if K of them end, K others still carry the search on."""
    batch_size, beams, vocab_size = logits.shape
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    totals = (log_probs + loop.live_log_probs[:, :, None]).reshape(batch_size, -1)
    best, flat = lax.top_k(totals, 2 * beams)
    beam, token = (flat // vocab_size).astype(jnp.int32), (flat % vocab_size).astype(jnp.int32)
    ids = jnp.take_along_axis(loop.live_ids, beam[:, :, None], axis=1)
    ids = lax.dynamic_update_slice_in_dim(ids, token[:, :, None], loop.position, axis=2)
    return _Candidates(ids, token, best, beam, token == eos_id)


def _finish(
    loop: _Loop, candidates: _Candidates, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the K best finished sequences of old and new: ids, scores and whether the slots are taken."""
    scores = candidates.log_probs / brevity_penalty(loop.position + 1, alpha)
    # Below even the empty slots, so that nothing unfinished is taken for a result.
    scores = jnp.where(candidates.ended, scores, scores + NO_SEQUENCE)
    all_scores = jnp.concatenate([loop.finished_scores, scores], axis=1)
    all_ids = jnp.concatenate([loop.finished_ids, candidates.ids], axis=1)
    all_finished = jnp.concatenate([loop.finished, candidates.ended], axis=1)
    best, order = _best(all_scores, loop.finished.shape[1])
    return (
        jnp.take_along_axis(all_ids, order[:, :, None], axis=1),
        best,
        jnp.take_along_axis(all_finished, order, axis=1),
    )


def _best(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """Returns the k largest scores of each row and their indices, in ascending order of score."""
    best, order = lax.top_k(scores, k)
    return jnp.flip(best, axis=1), jnp.flip(order, axis=1)
