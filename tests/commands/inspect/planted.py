"""A vocabulary of known words with made-up embeddings, in which neighbours can be planted."""

import numpy as np

from prompt_tuning.commands.inspect import frozen_tokens, neighbours

WIDTH = 64
PADDING = 28


class Words:
    """What is used of a SeqIO vocabulary: `▁w0`, `▁w1`, ... unless other words are given.

    Args:
      size: Number of ids.
      words: Id -> word, where it is another.
    """

    def __init__(self, size, words=None):
        self.vocab_size = size
        self.words = [f"▁w{token}" for token in range(size)]
        for token, word in (words or {}).items():
            self.words[token] = word
        self.tokenizer = self

    def IdToPiece(self, token):  # noqa: N802 - SentencePiece's name
        return self.words[token]

    def encode(self, text):
        return [self.words.index(f"▁{word}") for word in text.split()]


def make_table(size, rng):
    """Random embeddings, with rows behind the vocabulary as checkpoints have them."""
    return rng.standard_normal((size + PADDING, WIDTH)).astype(np.float32)


def make_tokens(size=1000, words=None, table=None):
    """Frozen tokens of `size` words."""
    rng = np.random.default_rng(7)
    table = make_table(size, rng) if table is None else table
    return frozen_tokens.make_tokens(table, Words(size, words))


def near(table, ids, *, noise=0.1, scale=5.0, seed=1):
    """A prompt made of tokens: longer by `scale`, and turned a little by noise of a share of each row's length."""
    rng = np.random.default_rng(seed)
    rows = table[list(ids)]
    turned = neighbours.unit(rng.standard_normal(rows.shape).astype(np.float32))
    return scale * (rows + noise * np.linalg.norm(rows, axis=1, keepdims=True) * turned)
