"""What a request may hold: each wrong field is named, with what it may be."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.commands.serve import bodies, problems
from prompt_tuning.commands.serve.bodies import Completion, Loading, Scoring
from prompt_tuning.commands.serve.problems import Refused

GOOD = {"model": "boolq", "prompt": "a"}


def _refusal(kind, content):
    with pytest.raises(Refused) as refused:
        bodies.read(kind, content if isinstance(content, bytes) else json.dumps(content).encode())
    status, body, _ = problems.told(refused.value)
    assert status == 400 and body["error"]["type"] == "invalid_request_error"
    assert "Fix: " in body["error"]["message"] and len(body["error"]["message"]) < 700
    return body["error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", []),
        ("prompt", [[]]),
        ("prompt", [1, "a"]),
        ("prompt", [-1]),
        ("prompt", ["a"] * 257),
        ("prompt", None),
        ("model", 5),
        ("max_tokens", -1),
        ("max_tokens", 0),
        ("max_tokens", 1.5),
        ("temperature", 2.1),
        ("temperature", "0"),
        ("top_p", 0),
        ("n", 0),
        ("n", 17),
        ("n", True),
        ("stop", ["a"] * 5),
        ("stop", ""),
        ("stop", "a" * 65),
        ("seed", 2**63),
        ("logprobs", 6),
        ("echo", True),
        ("suffix", "b"),
        ("stream", "yes"),
        ("stream_options", {"include": True}),
        ("timeout", 0),
        ("timeout", 601),
        ("best_of", 2),
        ("presence_penalty", 0.5),
        ("logit_bias", {"5": 1}),
        ("top_k", 5),
        ("<b>", 5),
    ],
)
def test_a_wrong_field_is_named(field, value):
    error = _refusal(Completion, {**GOOD, field: value})
    assert error["param"] == field


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{bad",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b"1" * 10_000,
    ],
)
def test_what_is_no_object_is_refused(content):
    assert _refusal(Completion, content)["param"] is None


@pytest.mark.parametrize("value", [b"NaN", b"1e999", b"-Infinity"])
def test_numbers_are_finite(value):
    content = b'{"model": "m", "prompt": "a", "temperature": ' + value + b"}"
    assert _refusal(Completion, content)["param"] == "temperature"


def test_what_openais_clients_always_send_is_taken():
    neutral = {"best_of": 1, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}}
    body = bodies.read(Completion, json.dumps({**GOOD, **neutral, "user": "x", "n": None}).encode())
    assert body.n is None and body.stops == ()


def test_what_does_not_go_together_is_refused():
    scored = {"echo": True, "suffix": "b", "max_tokens": 0}
    assert bodies.read(Completion, json.dumps({**GOOD, **scored}).encode()).suffix == "b"
    for more in ({"stream": True}, {"n": 2}, {"stop": "b"}):
        assert _refusal(Completion, {**GOOD, **scored, **more})["param"] == next(iter(more))
    assert _refusal(Scoring, {**GOOD, "labels": ["a", "b", "a"]})["param"] == "labels"
    assert _refusal(Scoring, GOOD)["param"] == "labels"
    labels = [str(number) for number in range(17)]
    assert _refusal(Scoring, {**GOOD, "prompt": ["a"] * 241, "labels": labels})["param"] == "prompt"


@pytest.mark.parametrize("name", ["../x", "a/b", "<b>", "", ".a", "a\n", "a" * 65, "frozen", "ä"])
def test_a_prompts_name_is_plain(name):
    content = {"prompt_name": name, "prompt_path": "a.npy"}
    assert _refusal(Loading, content)["param"] == "prompt_name"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.sampled_from(sorted(Completion.model_fields)) | st.text(max_size=5), _VALUES)
)
def test_any_object_is_taken_or_refused(more):
    content = json.dumps({**GOOD, **more}).encode()
    try:
        assert isinstance(bodies.read(Completion, content), Completion)
    except Refused as error:
        assert problems.told(error)[0] == 400
