"""Compiled predicting and scoring of any number of examples, a batch of fixed size at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import steps
from prompt_tuning.types import PyTree

# One example's model features, e.g. {"encoder_input_tokens": [L], "decoder_input_tokens": [T], ...}.
Example = Mapping[str, Any]
Numbered = Iterable[tuple[int, Example]]


class Inference:
    """Runs a model over numbered examples; works across processes, the uneven last batch included.

    Every process iterates over all examples and its devices compute their rows of each batch; results are replicated,
    so every process returns all of them. `params` is an argument of each call because training changes the prompt.

    Args:
      model: The model.
      partitioner: Where batches and results live.
      batch_size: Rows of a batch; the last one is filled up with padding that is dropped again.
      before_batch: Called before each batch; may raise.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        partitioner: PjitPartitioner,
        batch_size: int,
        before_batch: Callable[[], None] | None = None,
    ):
        """Compiles nothing yet; that happens at the first batch of each shape."""
        partitioner.check_batch_size(batch_size)
        self._partitioner = partitioner
        self._batch_size = batch_size
        self._before_batch = before_batch or (lambda: None)
        self._predict = steps.predict_step(model, partitioner)
        self._score = steps.score_step(model, partitioner)

    def predict_with_aux(
        self, params: PyTree, examples: Numbered, max_decode_length: int | None = None
    ) -> tuple[list[tuple[int, list[int]]], dict[str, list[float]]]:
        """Decodes every example.

        Args:
          params: All parameters.
          examples: `(index, model features)`; indices are returned with the results.
          max_decode_length: Tokens at most; None for the width of the examples' decoder features.

        Returns:
          `[(index, token ids)]` in order of arrival, and `{"scores": [float]}` in the same order.
        """
        outputs: list[tuple[int, list[int]]] = []
        scores: list[float] = []
        for indices, batch in self._batches(examples):
            with self._partitioner.activate():
                tokens, aux = self._predict(params, batch, max_decode_length)
            for row, index in enumerate(indices):
                outputs.append((index, np.asarray(tokens)[row].tolist()))
                scores.append(float(np.asarray(aux["scores"])[row]))
        return outputs, {"scores": scores}

    def predict(self, params: PyTree, examples: Numbered) -> list[tuple[int, list[int]]]:
        """Decodes every example; `[(index, token ids)]`."""
        return self.predict_with_aux(params, examples)[0]

    def score(self, params: PyTree, examples: Numbered) -> list[tuple[int, float]]:
        """Returns `[(index, log-likelihood of the targets in nats)]`."""
        outputs: list[tuple[int, float]] = []
        for indices, batch in self._batches(examples):
            with self._partitioner.activate():
                scores = np.asarray(self._score(params, batch))
            outputs.extend((index, float(scores[row])) for row, index in enumerate(indices))
        return outputs

    def _batches(self, examples: Numbered) -> Iterator[tuple[list[int], dict[str, jax.Array]]]:
        """Full batches on the devices, each with the indices of its real rows."""
        pending: list[tuple[int, Example]] = []
        for numbered in examples:
            pending.append(numbered)
            if len(pending) == self._batch_size:
                yield self._stack(pending)
                pending = []
        if pending:
            yield self._stack(pending)

    def _stack(self, rows: list[tuple[int, Example]]) -> tuple[list[int], dict[str, jax.Array]]:
        """One batch of model features, padded with zero rows to the batch size."""
        self._before_batch()
        names = [n for n in rows[0][1] if n.startswith(("encoder_", "decoder_"))]
        batch = {}
        for name in names:
            stacked = np.stack([np.asarray(features[name]) for _, features in rows])
            # One shape for all batches, so that nothing is compiled again for the last one.
            missing = self._batch_size - len(rows)
            batch[name] = np.pad(stacked, [(0, missing)] + [(0, 0)] * (stacked.ndim - 1))
        return [int(index) for index, _ in rows], self._partitioner.shard_batch(batch)
