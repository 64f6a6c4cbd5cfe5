"""Texts of answers as their tokens come: nothing that may still change is sent, and together it is the whole."""

import types
from typing import Any

import pytest
import seqio

from prompt_tuning.commands.serve.engine.requests import Token
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.commands.serve.texts import Answer, Texts


def _texts(vocabulary, **settings: Any) -> Texts:
    model: Any = types.SimpleNamespace(input_vocabulary=vocabulary, output_vocabulary=vocabulary)
    return Texts(model, **settings)


def _parts(texts, ids, stops=(), alternatives=None):
    """What is sent after each token, and at the end."""
    answer = Answer(texts, stops, alternatives)
    parts = []
    for id in ids:
        answer.add(Token(id, -0.5, ((id, -0.5), (1, -2.0))))
        parts.append(answer.take())
        if answer.reason:
            return parts
    answer.reason = "length"
    return [*parts, answer.take()]


def _joined(parts):
    return "".join(part["text"] for part in parts if part)


@pytest.mark.parametrize("text", ["the old mill by the river", "two  spaces", "é ü 🙂 and", ""])
def test_parts_are_the_whole_text(tiny_vocabulary, text):
    for vocabulary in (
        seqio.SentencePieceVocabulary(str(tiny_vocabulary)),
        seqio.ByteVocabulary(),
    ):
        ids = vocabulary.encode(text)
        parts = _parts(_texts(vocabulary), ids)
        assert _joined(parts) == vocabulary.decode(ids)
        assert parts[-1]["finish_reason"] == "length"
        assert not any("\ufffd" in part["text"] for part in parts if part)


def test_half_a_stop_text_waits_and_a_whole_one_ends():
    vocabulary = seqio.ByteVocabulary()
    texts, ids = _texts(vocabulary), vocabulary.encode("one two. three")
    sent = [part and part["text"] for part in _parts(texts, ids, ["o t", "two."])]
    # "o" may begin "o t", and "t" to "two" may begin "two.".
    assert sent == [None, "on", "e", " ", None, None, None, ""]
    # What turns out to be none is sent after all.
    assert _joined(_parts(texts, ids, ["o t", "threes"])) == "one two. three"


def test_log_probabilities_name_what_each_token_adds(tiny_vocabulary):
    vocabulary = seqio.SentencePieceVocabulary(str(tiny_vocabulary))
    ids = vocabulary.encode("the old mill")
    found = [part["logprobs"] for part in _parts(_texts(vocabulary), ids, (), 1) if part]
    assert "".join(name for f in found for name in f["tokens"]) == "the old mill"
    assert found[0]["top_logprobs"] == [{found[0]["tokens"][0]: -0.5}]
    assert _texts(vocabulary).added(ids, "the old mill", 1) == "</s>"


def test_inputs_end_as_the_tasks_do_and_ids_are_the_vocabularys():
    vocabulary = seqio.ByteVocabulary()
    assert _texts(vocabulary).prompts("a") == [(100, 1)]
    assert _texts(vocabulary, inputs_end=False).prompts(["a", "b"]) == [(100,), (101,)]
    assert _texts(vocabulary).prompts([[5, 6], [7]]) == [(5, 6), (7,)]
    with pytest.raises(Refused, match="token id that the vocabulary has not: got 400"):
        _texts(vocabulary).prompts([5, 400])
