"""Trains a SentencePiece vocabulary with T5's special ids."""

import io
from collections.abc import Iterable

import sentencepiece
from etils import epath


def train_vocabulary(path: epath.PathLike, texts: Iterable[str], *, vocab_size: int) -> epath.Path:
    """Trains a unigram model on `texts` and writes it: pad 0, EOS 1, unknown 2, no BOS.

    Args:
      path: Model file to write.
      texts: Sentences.
      vocab_size: Pieces at most, the three special ones included; fewer where `texts` hold fewer.

    Returns:
      `path`.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="unigram",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        # One thread: the same text always gives the same pieces.
        num_threads=1,
        minloglevel=2,
    )
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())
    return path
