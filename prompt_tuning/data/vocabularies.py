"""The vocabulary that registered tasks name: the one of the run, whichever that is."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import context
from prompt_tuning.errors import DataError

# This model file already holds T5's 100 sentinels as pieces: 32,100 ids with `extra_ids=0`, as T5X's gin files load it.
T5_VOCABULARY = "gs://t5-data/vocabs/cc_all.32000.100extra/sentencepiece.model"
# The file of 32,000 pieces that is in circulation as `spiece.model` needs the sentinels added.
T5_EXTRA_IDS = 100


def sentencepiece_vocabulary(
    path: str, extra_ids: int = T5_EXTRA_IDS
) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary of a SentencePiece model of T5 without sentinel pieces (`spiece.model`).

    Args:
      path: The model file.
      extra_ids: Sentinels `<extra_id_0>`, … added behind the pieces.
    """
    return seqio.SentencePieceVocabulary(path, extra_ids=extra_ids)


@functools.cache
def _t5_vocabulary() -> seqio.Vocabulary:
    return seqio.SentencePieceVocabulary(T5_VOCABULARY)


class RunVocabulary(seqio.Vocabulary):
    """Stands for the run's vocabulary (see `context`), or T5's own where the run names none.

    Nothing is read before the first question about ids, so that tasks register without a vocabulary file. All
    instances are equal: they always mean the same vocabulary.
    """

    def __init__(self) -> None:
        super().__init__()

    def resolve(self) -> seqio.Vocabulary:
        """Returns the vocabulary that is meant now."""
        vocabulary = context.get_vocabulary()
        if vocabulary is None or isinstance(vocabulary, RunVocabulary):
            return _t5_vocabulary()
        return vocabulary

    @property
    def bos_id(self) -> int | None:
        """Id that begins a sequence; T5 has none (-1)."""
        return self.resolve().bos_id

    @property
    def eos_id(self) -> int | None:
        """Id that ends a sequence."""
        return self.resolve().eos_id

    @property
    def pad_id(self) -> int:
        """Id of padding."""
        return self.resolve().pad_id

    @property
    def unk_id(self) -> int | None:
        """Id of what the vocabulary cannot write."""
        return self.resolve().unk_id

    @property
    def extra_ids(self) -> int:
        """Number of sentinels added behind the pieces."""
        return self.resolve().extra_ids

    @property
    def vocab_size(self) -> int:
        """Number of ids, sentinels included."""
        return self.resolve().vocab_size

    @property
    def _base_vocab_size(self) -> int:
        return self.resolve()._base_vocab_size

    # The public methods are delegated whole: each vocabulary does its own clean-up around the private ones.
    def encode(self, s: Sequence[int] | str) -> Sequence[int]:
        """Returns the ids of a text, without EOS."""
        return self.resolve().encode(s)

    def decode(self, ids: Iterable[int]) -> Any:
        """Returns the text of ids, up to the first EOS."""
        return self.resolve().decode(ids)

    def encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        """Returns the ids of a string tensor, int32, without EOS."""
        return self.resolve().encode_tf(s)

    def decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the strings of int32 ids, up to the first EOS."""
        return self.resolve().decode_tf(ids)

    def _encode(self, s: str) -> Sequence[int]:
        return self.resolve()._encode(s)

    def _decode(self, ids: Iterable[int]) -> Any:
        return self.resolve()._decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        return self.resolve()._encode_tf(s)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        return self.resolve()._decode_tf(ids)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RunVocabulary):
            return True
        return self.resolve() == other

    def __hash__(self) -> int:
        return hash(RunVocabulary)

    def __repr__(self) -> str:
        return "RunVocabulary()"

    def __str__(self) -> str:
        return f"RunVocabulary({self.resolve()})"


def check_vocabulary(vocabulary: seqio.Vocabulary) -> None:
    """Loads a vocabulary once, so that a wrong path is reported before anything is compiled.

    Args:
      vocabulary: Any SeqIO vocabulary.

    Raises:
      DataError: The model file is missing, or not a SentencePiece model, or has no end-of-sequence id.
    """
    resolved = vocabulary.resolve() if isinstance(vocabulary, RunVocabulary) else vocabulary
    path = getattr(resolved, "sentencepiece_model_file", None)
    fix = "set the vocabulary's `sentencepiece_model_file` to a SentencePiece model that this machine can read"
    # A look at the local disk first: TensorFlow's own message for a missing file names no setting.
    if path is not None and "://" not in str(path) and not epath.Path(path).is_file():
        raise DataError(
            "The vocabulary file does not exist", got=str(path), expected="a file", fix=fix
        )
    try:
        size, eos_id = resolved.vocab_size, resolved.eos_id
    # SentencePiece, TensorFlow and cloud storage each raise errors of their own.
    except Exception as error:
        raise DataError(
            f"The vocabulary file cannot be loaded ({type(error).__name__}: {error})",
            got=str(path or resolved),
            expected="a readable SentencePiece model",
            fix=fix,
        ) from error
    if size < 1 or eos_id is None or eos_id < 0:
        raise DataError(
            "The vocabulary has no end-of-sequence id",
            got=str(path or resolved),
            expected="a vocabulary whose sequences end in </s> (T5: id 1)",
            fix=fix,
        )
