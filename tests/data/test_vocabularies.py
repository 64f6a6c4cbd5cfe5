"""The run's vocabulary behind the registered features."""

import copy
import pickle

import pytest
import seqio
import tensorflow as tf

from prompt_tuning.data import context
from prompt_tuning.data.features import text_to_text_features
from prompt_tuning.data.vocabularies import (
    T5_VOCABULARY,
    RunVocabulary,
    check_vocabulary,
    sentencepiece_vocabulary,
)
from prompt_tuning.errors import DataError
from tests.helpers import SHARED, requires_shared

TEXT = "The movie was great, was it not?"


@pytest.fixture
def vocabulary(tiny_vocabulary):
    vocabulary = sentencepiece_vocabulary(str(tiny_vocabulary))
    context.set_context(vocabulary=vocabulary)
    yield vocabulary
    context.set_context()


def test_it_answers_as_the_runs_vocabulary(vocabulary):
    ours = RunVocabulary()
    # The trainer makes fewer pieces where the text is short, so the size is asked, not known.
    assert ours.vocab_size == vocabulary.tokenizer.GetPieceSize()
    for name in ("vocab_size", "extra_ids", "pad_id", "eos_id", "unk_id", "bos_id"):
        assert getattr(ours, name) == getattr(vocabulary, name), name
    assert ours.extra_ids == 100 and (ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, 2)
    tokens = ours.encode(TEXT)
    assert tokens == vocabulary.encode(TEXT) and len(tokens) > 4
    assert ours.decode([*tokens, 1, 5]) == vocabulary.decode([*tokens, 1, 5])
    assert ours.encode_tf(tf.constant(TEXT)).numpy().tolist() == tokens
    decoded = ours.decode_tf(tf.constant([tokens])).numpy()
    assert decoded.tolist() == vocabulary.decode_tf(tf.constant([tokens])).numpy().tolist()
    assert ours.decode([10**6]) == vocabulary.decode([10**6])


def test_equality_hash_and_text(vocabulary, tiny_vocabulary):
    ours = RunVocabulary()
    assert ours == RunVocabulary() and hash(ours) == hash(RunVocabulary())
    assert ours == sentencepiece_vocabulary(str(tiny_vocabulary))
    assert ours != sentencepiece_vocabulary(str(tiny_vocabulary), extra_ids=0)
    assert ours != seqio.ByteVocabulary()
    assert str(tiny_vocabulary) in str(ours)
    assert copy.deepcopy(ours) == ours == pickle.loads(pickle.dumps(ours))
    assert text_to_text_features() == text_to_text_features()


def is_t5s_own(vocabulary):
    return getattr(vocabulary, "sentencepiece_model_file", None) == T5_VOCABULARY


def test_it_follows_the_context(tiny_vocabulary):
    ours = RunVocabulary()
    assert is_t5s_own(ours.resolve())
    # T5's `100extra` file holds the sentinels as pieces; adding them again would pass the 32,128 embeddings.
    assert ours.resolve()._extra_ids == 0
    with context.overriding(vocabulary=seqio.ByteVocabulary()):
        assert ours.vocab_size == seqio.ByteVocabulary().vocab_size
    context.set_context(vocabulary=ours)
    assert is_t5s_own(ours.resolve())
    context.set_context()
    assert context.get_vocabulary() is None and context.get_data_dir() is None


def test_the_context_is_back_after_an_override():
    context.set_context(data_dir="/a")
    with pytest.raises(KeyError), context.overriding(data_dir="/b"):
        assert context.get_data_dir() == "/b"
        raise KeyError
    assert context.get_data_dir() == "/a"
    context.set_context()


def test_a_vocabulary_that_cannot_be_loaded_is_named(tmp_path, vocabulary):
    check_vocabulary(vocabulary)
    check_vocabulary(RunVocabulary())
    missing = str(tmp_path / "missing.model")
    with pytest.raises(DataError, match="missing.model"):
        check_vocabulary(seqio.SentencePieceVocabulary(missing))
    damaged = tmp_path / "damaged.model"
    damaged.write_bytes(b"this is no SentencePiece model")
    with pytest.raises(DataError, match="damaged.model"):
        check_vocabulary(seqio.SentencePieceVocabulary(str(damaged)))
    with pytest.raises(DataError, match="end-of-sequence"):
        check_vocabulary(seqio.PassThroughVocabulary(size=10))


@requires_shared
def test_t5s_own_pieces():
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    assert vocabulary.vocab_size == 32_100
    with context.overriding(vocabulary=vocabulary):
        assert RunVocabulary().encode("Hello world") == [8774, 296]
        assert RunVocabulary().encode("<extra_id_0>") == [32_099]
