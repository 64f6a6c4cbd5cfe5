"""Compiled predicting and scoring of any number of examples, sorted by length, in batches of a few sizes."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import widths
from prompt_tuning.data.widths import Size
from prompt_tuning.decoding.beam_search import BeamSearch
from prompt_tuning.decoding.greedy import Greedy
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import steps
from prompt_tuning.types import PyTree

# One example's model features, e.g. {"encoder_input_tokens": [L], "decoder_input_tokens": [T], ...}.
Example = Mapping[str, Any]
Numbered = Iterable[tuple[int, Example]]
_Features = dict[str, np.ndarray]

_TOKENS = "encoder_input_tokens"
_TARGETS = "decoder_target_tokens"
_TARGET_FEATURES = ("decoder_input_tokens", _TARGETS, "decoder_loss_weights")
# So two labels of any length share a part; with more, logits would take memory without end.
_TARGETS_IN_A_PART = 2


class Inference:
    """Runs a model over numbered examples; works across processes, the uneven last batch included.

    All examples of a call are read before the first is computed: the longest first, in batches as wide as these need.
    Every process iterates over all examples and its devices compute their rows of each batch; results are replicated,
    so every process returns all of them. `params` is an argument of each call because training changes the prompt.

    Args:
      model: The model.
      partitioner: Where batches and results live.
      batch_size: Rows of a batch; the last one may have fewer, and is filled up with padding that is dropped again.
      before_batch: Called before each batch; may raise.
    """

    def __init__(
        self,
        model: EncoderDecoderModel,
        partitioner: PjitPartitioner,
        batch_size: int,
        before_batch: Callable[[], object] | None = None,
    ):
        """Compiles nothing yet; that happens at the first batch of each size."""
        partitioner.check_batch_size(batch_size)
        self._partitioner = partitioner
        self._batch_size = batch_size
        self._before_batch = before_batch or (lambda: None)
        self._predict = steps.predict_step(model, partitioner)
        self._score = steps.score_step(model, partitioner)
        # A draw depends on where in a batch its row stands.
        self._in_order = not isinstance(model.decoder, Greedy | BeamSearch)
        self._predicted: set[Size] = set()
        self._scored: set[Size] = set()

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
        indices, rows, length = [], [], max_decode_length
        for index, features in examples:
            length = length or len(features["decoder_input_tokens"])
            indices.append(int(index))
            rows.append(Row.of(features))
        sizes = [Size(1, row.width, 1, length or 1) for row in rows]
        # A program that decodes more tokens than these would answer otherwise.
        compiled = {size for size in self._predicted if size.targets == length}
        ids: list[Any] = [None] * len(rows)
        scores = [0.0] * len(rows)
        for positions, size in self._batches(sizes, compiled, in_order=self._in_order):
            batch = self._on_devices([rows[i].encoder(size) for i in positions], size)
            with self._partitioner.activate():
                tokens, aux = self._predict(params, batch, length)
            self._predicted.add(size)
            row_ids, row_scores = np.asarray(tokens).tolist(), np.asarray(aux["scores"]).tolist()
            for row, position in enumerate(positions):
                ids[position], scores[position] = row_ids[row], row_scores[row]
        return list(zip(indices, ids, strict=True)), {"scores": scores}

    def predict(self, params: PyTree, examples: Numbered) -> list[tuple[int, list[int]]]:
        """Decodes every example; `[(index, token ids)]`."""
        return self.predict_with_aux(params, examples)[0]

    def score(self, params: PyTree, examples: Numbered) -> list[tuple[int, float]]:
        """Returns `[(index, log-likelihood of the targets in nats)]` in order of arrival.

        Examples of the same input, as the labels of a ranked task make them, are rows of one batch: it is encoded once.
        """
        indices: list[int] = []
        by_input: dict[Any, Row] = {}
        for position, (index, features) in enumerate(examples):
            indices.append(int(index))
            row = Row.of(features)
            by_input.setdefault(row.key(), row).add_target(position, features)
        rows = list(by_input.values())
        scores = [0.0] * len(indices)
        sizes = [row.size() for row in rows]
        for positions, size in self._batches(sizes, self._scored):
            features = [rows[i].encoder(size) | rows[i].decoder(size) for i in positions]
            batch = self._on_devices(features, size)
            with self._partitioner.activate():
                token_scores = np.asarray(self._score(params, batch))
            self._scored.add(size)
            for row, position in enumerate(positions):
                for target in rows[position].targets:
                    part, start, stop = target.part, target.start, target.start + target.length
                    scores[target.position] = float(
                        token_scores[row, part, start:stop].sum(dtype=np.float64)
                    )
        return list(zip(indices, scores, strict=True))

    def _batches(
        self, sizes: Sequence[Size], compiled: Iterable[Size], *, in_order: bool = False
    ) -> Iterator[tuple[list[int], Size]]:
        """Positions of the rows of each batch, and its size."""
        batches = widths.batches_by_size(
            sizes,
            self._batch_size,
            row_multiple=self._partitioner.mesh.shape["data"],
            compiled=frozenset(compiled),
            in_order=in_order,
        )
        for positions, size in batches:
            self._before_batch()
            yield positions, size

    def _on_devices(self, rows: Sequence[Example], size: Size) -> dict[str, Any]:
        return self._partitioner.shard_batch(stacked(rows, size.rows))


def stacked(rows: Sequence[Example], count: int) -> dict[str, np.ndarray]:
    """Returns a batch of `count` rows, filled up with zeros, on the host."""
    batch = {}
    for name in rows[0]:
        of_rows = np.stack([features[name] for features in rows])
        batch[name] = np.pad(of_rows, [(0, count - len(rows))] + [(0, 0)] * (of_rows.ndim - 1))
    return batch


@dataclasses.dataclass
class _Target:
    """One target of an input, and where it stands among the others of this input."""

    position: int  # of its example in order of arrival
    part: int
    start: int
    length: int
    features: _Features  # of the decoder, each [length]


@dataclasses.dataclass
class Row:
    """One input without its padding, with the targets that are scored on it.

    Attributes:
      features: Those of the encoder, its tokens as long as they are.
      width: That of its batch at least (L).
      targets: Its targets, in order of arrival.
      part_width: Tokens of targets in a part, at most.
    """

    features: _Features
    width: int
    targets: list[_Target] = dataclasses.field(default_factory=list)
    part_width: int = 0

    @classmethod
    def of(cls, features: Example) -> "Row":
        """The input of an example."""
        own = {name: np.asarray(x) for name, x in features.items() if name.startswith("encoder_")}
        tokens = own[_TOKENS]
        length = widths.real_length(tokens)
        # A copy, so that the padding is not kept.
        own[_TOKENS] = tokens[:length].copy()
        return cls(own, widths.width_of(length, len(tokens)))

    def key(self) -> Any:
        """What is equal for equal inputs, those with the same prompt."""
        return tuple((name, x.tobytes()) for name, x in sorted(self.features.items()))

    def add_target(self, position: int, features: Example) -> None:
        """Puts a target behind the others, into a new part where it does not fit into the last one."""
        targets = np.asarray(features[_TARGETS])
        length = widths.real_length(targets)
        own = {name: np.asarray(features[name])[:length].copy() for name in _TARGET_FEATURES}
        self.part_width = max(self.part_width, _TARGETS_IN_A_PART * len(targets))
        last = self.targets[-1] if self.targets else _Target(0, 0, 0, 0, {})
        part, start = last.part, last.start + last.length
        if start + length > self.part_width:
            part, start = part + 1, 0
        self.targets.append(_Target(position, part, start, length, own))

    def size(self) -> Size:
        """The size of the row; where there are several parts, these are whole."""
        last = self.targets[-1]
        if last.part:
            return Size(1, self.width, last.part + 1, self.part_width)
        return Size(1, self.width, 1, widths.width_of(last.start + last.length, self.part_width))

    def encoder(self, size: Size) -> _Features:
        """The features of the encoder, its tokens padded."""
        tokens = self.features[_TOKENS]
        padded = np.pad(tokens, (0, size.inputs - len(tokens)))
        return {**self.features, _TOKENS: padded}

    def decoder(self, size: Size) -> _Features:
        """The features of the decoder [G, T], with the number of each target, from 1, as its segment."""
        shape = (size.parts, size.targets)
        arrays = {name: np.zeros(shape, x.dtype) for name, x in self.targets[0].features.items()}
        segments = np.zeros(shape, np.int32)
        for number, target in enumerate(self.targets, start=1):
            place = (target.part, slice(target.start, target.start + target.length))
            segments[place] = number
            for name, x in target.features.items():
                arrays[name][place] = x
        return {**arrays, "decoder_segment_ids": segments}
