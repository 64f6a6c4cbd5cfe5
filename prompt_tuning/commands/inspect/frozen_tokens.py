"""The frozen embeddings that prompts are compared with: of a whole checkpoint, the one table alone is read."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from prompt_tuning.checkpoints.source import ParamSource, embedding_scale
from prompt_tuning.commands.inspect import neighbours
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import EMBEDDING

# Rows read or compared at once: at XXL's width 64 MiB of float32.
_ROWS_AT_ONCE = 4096
# Tokens from which it is estimated how near the nearest other token usually is.
_SAMPLE = 256


@dataclasses.dataclass(frozen=True)
class FrozenTokens:
    """The tokens of a vocabulary and their frozen embeddings.

    Attributes:
      table: [V, H] float32, all rows of the checkpoint's table.
      num_tokens: Ids that the vocabulary has a token for; tables are often longer, and what is left is never trained.
      text_of: Token id -> its text as the vocabulary keeps it; `▁` marks the start of a word.
      near_cosine: Cosine from which on the embeddings of two tokens count as near one another: a token has one other
        that is as near, on average.
    """

    table: Float[np.ndarray, "V H"]
    num_tokens: int
    text_of: Callable[[int], str]
    near_cosine: float

    def blocks(self) -> Iterator[tuple[int, Float[np.ndarray, "rows H"]]]:
        """Yields (first id, embeddings) of all tokens, a few thousand at a time."""
        for start in range(0, self.num_tokens, _ROWS_AT_ONCE):
            yield start, self.table[start : min(start + _ROWS_AT_ONCE, self.num_tokens)]

    def mean_norm(self) -> float:
        """Returns the mean length of the tokens' embeddings."""
        norms = [np.linalg.norm(rows, axis=1).sum() for _, rows in self.blocks()]
        return float(sum(norms) / self.num_tokens)


def make_tokens(table: Float[np.ndarray, "V H"], vocabulary: Any) -> FrozenTokens:
    """Returns the tokens of a SeqIO vocabulary with their embeddings.

    Args:
      table: [V, H] float32.
      vocabulary: The vocabulary.

    Raises:
      CheckpointError: If the vocabulary has more ids than the table has rows.
    """
    size = vocabulary.vocab_size
    if size > len(table):
        raise CheckpointError(
            "The vocabulary is not that of the frozen weights",
            got=f"{size} ids",
            expected=f"at most {len(table)}, the rows of the embedding table",
            fix="name the checkpoint's own vocabulary; T5X's model files hold the sentinels (--extra_ids=0)",
        )
    tokens = FrozenTokens(table, size, _text_of(vocabulary), near_cosine=1.0)
    return dataclasses.replace(tokens, near_cosine=_near_cosine(tokens))


def read_table(source: ParamSource, width: int) -> Float[np.ndarray, "V H"]:
    """Reads the embedding table of a checkpoint, a block at a time, and nothing else of it.

    Args:
      source: The opened checkpoint.
      width: H of the prompt.

    Returns:
      [V, H] float32.

    Raises:
      CheckpointError: If the checkpoint has no such table, or of another width.
    """
    shapes = source.shapes()
    shape = shapes[EMBEDDING][0] if EMBEDDING in shapes else None
    if shape is None or shape[1] != width:
        raise CheckpointError(
            f"The prompt does not belong to the checkpoint {source.path}",
            got=f"an embedding table {list(shape)}" if shape else f"no {EMBEDDING}",
            expected=f"one of the prompt's width {width}",
            fix="name the checkpoint that the prompt was tuned on as --checkpoint",
        )
    table = np.empty(shape, np.float32)
    # Whole stored blocks, so that none is decompressed twice.
    stored = source.chunks(EMBEDDING)[0]
    step = stored * max(1, _ROWS_AT_ONCE // stored)
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        table[rows] = source.read(EMBEDDING, (rows, slice(0, width)))
    # As they enter the encoder, in front of which prompts stand.
    if (scale := embedding_scale(source)) != 1:
        table *= np.float32(scale)
    return table


def _near_cosine(tokens: FrozenTokens) -> float:
    """The cosine that as many pairs reach as there are tokens, from the pairs that a sample of tokens takes part in."""
    ids = np.random.default_rng(0).permutation(tokens.num_tokens)[:_SAMPLE]
    units = neighbours.unit(tokens.table[ids])
    cosines = np.concatenate([units @ neighbours.unit(rows).T for _, rows in tokens.blocks()], 1)
    cosines[np.arange(len(ids)), ids] = -1
    return float(np.partition(cosines, -len(ids), axis=None)[-len(ids)])


def _text_of(vocabulary: Any) -> Callable[[int], str]:
    """How the vocabulary writes one id."""
    # The stand-in that registered tasks name has no pieces of its own.
    vocabulary = vocabulary.resolve() if hasattr(vocabulary, "resolve") else vocabulary
    if hasattr(vocabulary, "tokenizer"):
        return vocabulary.tokenizer.IdToPiece
    return lambda token: vocabulary.decode([token]) or f"<{token}>"
