"""The server as a stranger finds it: methods, keys, sizes, cut bodies, readers that are slow or gone."""

import asyncio
import json
import socket
import time
import types
from typing import Any

import pytest

from prompt_tuning.commands.serve import app
from prompt_tuning.commands.serve.engine.scheduler import Scheduler
from prompt_tuning.commands.serve.metrics import Meters
from prompt_tuning.commands.serve.service import Service
from prompt_tuning.commands.serve.texts import Texts

COMPLETE = {"model": "boolq", "prompt": "the old mill"}
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer a-key-of-the-tests\r\n"
)


def _exchange(served, *parts: bytes, ends: bool = False) -> bytes:
    """What comes back for bytes on a connection."""
    with served.connect() as connection:
        for part in parts:
            connection.sendall(part)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(2**16):
            answer += part
    return answer


def _wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status"),
    [
        ("/v1/completions", None, {}, 405),
        ("/v1/nothing", None, {}, 404),
        ("/nothing", None, {}, 404),
        ("/v1/models/nothing", None, {}, 404),
        ("/v1/models/..%2f..%2fetc%2fpasswd", None, {}, 404),
        ("/v1/completions", COMPLETE, {"Authorization": "Bearer wrong"}, 401),
        ("/v1/completions", COMPLETE, {"Authorization": "Basic a-key-of-the-tests"}, 401),
        ("/v1/models", None, {"Authorization": ""}, 401),
        ("/v1/completions", COMPLETE, {"Content-Type": "text/plain"}, 415),
        ("/v1/completions", b"{", {}, 400),
        ("/v1/completions", {**COMPLETE, "model": "nothing"}, {}, 404),
        ("/v1/completions", {**COMPLETE, "model": "<script>"}, {}, 404),
        ("/v1/completions", {**COMPLETE, "prompt": "the old mill " * 50}, {}, 400),
        ("/v1/completions", {**COMPLETE, "max_tokens": 13}, {}, 400),
        ("/v1/completions", {**COMPLETE, "prompt": ["a"] * 25}, {}, 400),
        ("/v1/completions", b" " * 10_000_000, {}, 413),
        ("/v1/score", {**COMPLETE, "labels": ["the old mill " * 50]}, {}, 400),
    ],
)
def test_what_cannot_be_answered_has_a_status_and_a_sentence(
    served, path, content, headers, status
):
    found, answer, sent = served.ask(path, content, **headers)
    assert found == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert "Fix: " in answer["error"]["message"] and "/tmp" not in answer["error"]["message"]
    assert sent["Server"] is None and sent["X-Content-Type-Options"] == "nosniff"
    assert (status == 401) == (sent["WWW-Authenticate"] == "Bearer")
    assert served.ask("/health")[0] == 200


def test_what_asks_for_no_key_tells_nothing_of_the_prompts(served):
    assert served.ask("/health", Authorization="")[1] == {"status": "ok"}
    status, text, headers = served.ask("/metrics", Authorization="")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=")
    assert "boolq" not in text


def test_a_body_of_no_stated_length_has_the_same_limit(served):
    chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
    answer = _exchange(
        served, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunk * 160, b"0\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 413 ") and b"Fix: " in answer


def test_a_body_that_is_cut_off_costs_nothing(served):
    before = served.figure("prompt_tuning_requests_total")
    assert _exchange(served, HEAD, b'Content-Length: 500\r\n\r\n{"model"', ends=True) == b""
    path = 'prompt_tuning_http_requests_total{path="/v1/completions",status="499"}'
    _wait_for(lambda: served.figure(path) > 0)
    assert served.figure("prompt_tuning_requests_total") == before
    assert _exchange(served, b"GARBAGE\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.fixture
def slowly(monkeypatch):
    """Has the engine wait before its steps, so that there is something to see under way."""
    decode = Scheduler.decode

    def slow(self, has_waiting):
        time.sleep(0.1)
        decode(self, has_waiting)

    monkeypatch.setattr(Scheduler, "decode", slow)


@pytest.mark.usefixtures("slowly")
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_slots(served, stream):
    cancelled = 'prompt_tuning_finished_total{reason="cancelled"}'
    before = served.figure(cancelled)
    content = {
        "model": "boolq",
        "prompt": ["the old mill"] * 24,
        "temperature": 2,
        "stream": stream,
    }
    body = json.dumps(content).encode()
    with served.connect() as connection:
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _wait_for(lambda: served.figure("prompt_tuning_busy_slots") > 0)
    _wait_for(lambda: served.figure(cancelled) > before)
    _wait_for(lambda: served.figure("prompt_tuning_busy_slots") == 0)
    assert served.figure("prompt_tuning_waiting") == 0


def test_who_reads_slowly_holds_up_nobody(served):
    body = json.dumps({**COMPLETE, "stream": True, "logprobs": 5}).encode()
    with served.connect() as slow:
        slow.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        for _ in range(3):
            assert served.ask("/v1/completions", COMPLETE)[0] == 200
        answer = b""
        while b"data: [DONE]" not in answer:
            answer += slow.recv(64)
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.usefixtures("slowly")
def test_more_than_may_wait_is_told_when_to_come_again(served):
    content = {**COMPLETE, "prompt": ["the old mill"] * 24, "temperature": 2}
    body = json.dumps(content).encode()
    with served.connect() as first:
        first.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _wait_for(lambda: served.figure("prompt_tuning_waiting") > 4)
        status, answer, headers = served.ask("/v1/completions", content)
        assert (status, headers["Retry-After"]) == (429, "1")
        assert answer["error"]["code"] == "queue_full"
        assert first.recv(2**16).startswith(b"HTTP/1.1 200 ")


def test_a_crowd_is_told_to_come_again_and_probes_are_answered(served, monkeypatch):
    monkeypatch.setattr(app, "_MOST", 0)
    status, answer, headers = served.ask("/v1/models")
    assert (status, headers["Retry-After"], answer["error"]["code"]) == (503, "1", "overloaded")
    assert [served.ask(path)[0] for path in ("/health", "/metrics")] == [200, 200]


def test_every_figure_of_the_engine_is_told(served):
    text = served.ask("/metrics")[1]
    stats = {line.split()[0] for line in text.splitlines() if line.startswith("prompt_tuning_")}
    assert served.ask("/v1/completions", COMPLETE)[0] == 200
    assert {"prompt_tuning_slots", "prompt_tuning_output_tokens_total"} <= stats
    assert served.figure("prompt_tuning_first_token_seconds_count") > 0
    assert served.figure("process_resident_memory_bytes") > 0


@pytest.mark.parametrize(("host", "status"), [("localhost:8000", 200), ("evil.example", 400)])
def test_without_keys_no_other_name_leads_here(host, status):
    engine: Any = types.SimpleNamespace(is_ready=True)
    service = Service(engine, Texts(engine), Meters(engine))
    application = app.make_app(service, frozenset(), ("localhost",))
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/health", "query_string": b""}
    scope["headers"] = [(b"host", host.encode())]
    asyncio.run(application(scope, receive, send))
    assert sent[0]["status"] == status
