"""The run's vocabulary behind the registered features."""

import copy
import http.server
import pickle
import threading
import types

import pytest
import sentencepiece
import seqio
import tensorflow as tf

from prompt_tuning.data import context
from prompt_tuning.data.registry import text_to_text_features
from prompt_tuning.data.vocabularies import (
    T5_VOCABULARY,
    RunVocabulary,
    SentencePieceVocabulary,
    cached_path,
    check_vocabulary,
    sentencepiece_vocabulary,
)
from prompt_tuning.errors import DataError
from tests import helpers
from tests.helpers import SHARED, requires_shared

TEXT = "The movie was great, was it not?"


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


@pytest.mark.parametrize(
    "ids",
    [
        {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2},
        {"pad_id": 3, "unk_id": 0, "bos_id": -1, "eos_id": 1},
        {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": 2},
    ],
)
def test_special_ids_are_those_of_the_model(tmp_path, ids):
    path = tmp_path / "other.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(helpers.ENGLISH),
            model_writer=file,
            vocab_size=100,
            hard_vocab_limit=False,
            minloglevel=2,
            **ids,
        )
    with pytest.raises(DataError) as error:
        check_vocabulary(sentencepiece_vocabulary(str(path)))
    for words in [f"pad {ids['pad_id']}, EOS {ids['eos_id']}", "--pad_id=0 --eos_id=1", str(path)]:
        assert words in str(error.value)


def test_it_equals_seqios_own_class(tiny_vocabulary):
    path = str(tiny_vocabulary)
    ours, theirs = SentencePieceVocabulary(path, 100), seqio.SentencePieceVocabulary(path, 100)
    assert ours == theirs and theirs == ours
    assert ours != seqio.SentencePieceVocabulary(path)
    assert pickle.loads(pickle.dumps(ours)) == ours


@pytest.fixture
def web(tiny_vocabulary, tmp_path, monkeypatch):
    """A web server with a model and a page, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {"/sp.model": tiny_vocabulary.read_bytes(), "/page": b"<html>a page about it</html>"}
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield types.SimpleNamespace(address=f"http://127.0.0.1:{server.server_port}", asked=asked)
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_on_the_web_is_downloaded_once(web, tiny_vocabulary, tmp_path):
    address = f"{web.address}/sp.model"
    vocabulary = sentencepiece_vocabulary(address)
    assert not web.asked
    check_vocabulary(vocabulary)
    assert vocabulary.encode(TEXT) == sentencepiece_vocabulary(str(tiny_vocabulary)).encode(TEXT)
    again = copy.deepcopy(vocabulary)
    assert again == vocabulary == sentencepiece_vocabulary(address) and again.vocab_size > 100
    assert web.asked == ["/sp.model"]
    (kept,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert str(kept) == cached_path(address) and kept.read_bytes() == tiny_vocabulary.read_bytes()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/missing.model", ["cannot be downloaded", "404"]),
        ("/page", ["no SentencePiece model", "not of a page"]),
    ],
)
def test_a_download_that_is_no_model_is_refused(web, tmp_path, name, words):
    with pytest.raises(DataError) as error:
        check_vocabulary(sentencepiece_vocabulary(web.address + name))
    for word in [web.address + name, "name its path", *words]:
        assert word in str(error.value)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_host_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match="cannot be downloaded.*https://nowhere.invalid"):
        check_vocabulary(sentencepiece_vocabulary("https://nowhere.invalid/sp.model"))


def test_other_paths_are_not_touched():
    assert cached_path("gs://bucket/sp.model") == "gs://bucket/sp.model"
    assert cached_path("/a/sp.model") == "/a/sp.model"
    assert cached_path("https://a/x/sp.model") != cached_path("https://a/y/sp.model")
    assert cached_path("https://a/x/sp.model?download=true").endswith("/sp.model")


def test_bytes_with_and_without_extra_ids():
    for vocabulary, size in ((seqio.ByteVocabulary(), 259), (seqio.ByteVocabulary(125), 384)):
        check_vocabulary(vocabulary)
        with context.overriding(vocabulary=vocabulary):
            ours = RunVocabulary()
            assert ours.vocab_size == size and ours.eos_id == 1
            assert ours.encode("é") == [198, 172] and ours.decode([198, 172, 1]) == "é"


@requires_shared
def test_t5s_own_pieces():
    assert SHARED is not None
    vocabulary = sentencepiece_vocabulary(str(SHARED / "data/t5_tokenizer/spiece.model"))
    assert vocabulary.vocab_size == 32_100
    with context.overriding(vocabulary=vocabulary):
        assert RunVocabulary().encode("Hello world") == [8774, 296]
        assert RunVocabulary().encode("<extra_id_0>") == [32_099]
