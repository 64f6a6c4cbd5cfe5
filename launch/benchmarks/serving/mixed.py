"""Requests of every kind, right and wrong, and whether what comes back is what it should be."""

import asyncio
import contextlib
import dataclasses
import json
import random
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from prompt_tuning.launch.benchmarks.serving import load
from prompt_tuning.launch.benchmarks.serving.subject import Ask

SCORE, LOAD, UNLOAD = "/v1/score", "/v1/load_prompt", "/v1/unload_prompt"
LABELS = ("the", "was", "people")
# How far apart log-likelihoods may be that are summed in other batches. Unit: nats.
_TOLERANCE = 1e-3
_LARGE = 10 * 2**20
# What a server that is full asks for, so often at most.
_TRIES = 100


class Wrong(Exception):
    """What came back is not what should have."""


@dataclasses.dataclass(frozen=True)
class Known:
    """A question whose answers are known.

    Attributes:
      ask: The question.
      text: The greedy answer, as `prompt-tuning infer` has it.
      scores: Its log-likelihoods of `LABELS`.
    """

    ask: Ask
    text: str
    scores: tuple[float, ...]


class Mixed:
    """Clients of all kinds.

    Args:
      url: The server.
      known: Questions, from which requests are drawn; each with an answer that no other one has.
      seed: Of all that is drawn.

    Attributes:
      counts: Of each kind, and of what came of it.
      troubles: The first things that were not as they should be.
    """

    def __init__(self, url: str, known: Sequence[Known], seed: int):
        self._url, self._known = url, known
        self._random = random.Random(seed)
        self._texts = frozenset(one.text for one in known)
        self._lent = 0
        self.counts: Counter[str] = Counter()
        self.troubles: list[str] = []

    async def send(self, number: int, clients: int, seen: Callable[[int], None]) -> None:
        """Sends requests, so many at a time.

        Args:
          number: How many.
          clients: Connections.
          seen: Is told how many were sent, after each.
        """
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=clients)
        kinds, weights = zip(*_KINDS.items(), strict=True)
        left = iter(self._random.choices(kinds, weights, k=number))
        done = 0

        async with httpx2.AsyncClient(base_url=self._url, timeout=300, limits=limits) as http:

            async def client() -> None:
                nonlocal done
                for kind in left:
                    await self._one(kind, http)
                    done += 1
                    seen(done)

            await asyncio.gather(*(client() for _ in range(clients)))

    async def _one(
        self, kind: Callable[["Mixed", httpx2.AsyncClient], Awaitable[None]], http: Any
    ) -> None:
        name = kind.__name__.strip("_")
        self.counts[f"sent: {name}"] += 1
        try:
            await kind(self, http)
        except Wrong as error:
            self._tell("wrong", f"{name}: {error}")
        except (OSError, httpx2.HTTPError, ValueError, LookupError) as error:
            where = "".join(traceback.format_exception_only(error)).strip()
            self._tell("lost", f"{name}: {where}")

    def _tell(self, what: str, text: str) -> None:
        self.counts[what] += 1
        if len(self.troubles) < 20:
            self.troubles.append(f"{what}: {text[:600]}")

    def _draw(self) -> Known:
        return self._random.choice(self._known)

    async def _post(self, http: httpx2.AsyncClient, path: str, body: Any) -> httpx2.Response:
        """Asks until there is a place in the queue."""
        for _ in range(_TRIES):
            response = await http.post(path, json=body)
            if response.status_code != 429:
                break
            self.counts["told to wait"] += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))
        return response

    def check(self, known: Known, text: str, max_tokens: int | None = None) -> None:
        """Raises Wrong unless a text is the answer, or its beginning where fewer tokens were asked for."""
        is_cut = max_tokens is not None and max_tokens < known.ask.max_tokens
        if text == known.text or (is_cut and known.text.startswith(text)):
            return
        what = "another's answer" if text in self._texts else "no answer of ours"
        self.counts["crossed"] += text in self._texts
        raise Wrong(f"{what}: got {text!r}, expected {known.text!r} to {known.ask}")

    async def _whole(self, http: httpx2.AsyncClient) -> None:
        known, longest = self._draw(), self._random.choice([2, 8, None])
        body = _body(known, max_tokens=longest)
        response = await self._post(http, load.PATH, body)
        self.check(known, _json(response)["choices"][0]["text"], longest)

    async def _stream(self, http: httpx2.AsyncClient) -> None:
        known = self._draw()
        for _ in range(_TRIES):
            async with http.stream("POST", load.PATH, json=_body(known, stream=True)) as response:
                if response.status_code != 429:
                    response.raise_for_status()
                    parts = [text async for text in load.texts(response)]
                    return self.check(known, "".join(parts))
            self.counts["told to wait"] += 1
            await asyncio.sleep(1)
        raise Wrong(f"the queue was full {_TRIES} times")

    async def _several(self, http: httpx2.AsyncClient) -> None:
        first = self._draw()
        all_ = [
            first,
            *(k for k in self._random.sample(self._known, 24) if k.ask.model == first.ask.model),
        ]
        body = _body(first, prompt=[known.ask.prompt for known in all_])
        choices = _json(await self._post(http, load.PATH, body))["choices"]
        if [choice["index"] for choice in choices] != list(range(len(all_))):
            raise Wrong(f"indices of {choices}")
        for known, choice in zip(all_, choices, strict=True):
            self.check(known, choice["text"])

    async def _score(self, http: httpx2.AsyncClient) -> None:
        known = self._draw()
        body = {"model": known.ask.model, "prompt": known.ask.prompt, "labels": LABELS}
        (data,) = _json(await self._post(http, SCORE, body))["data"]
        found = [row["logprob"] for row in data["scores"]]
        if any(abs(a - b) > _TOLERANCE for a, b in zip(found, known.scores, strict=True)):
            raise Wrong(f"got {found}, expected {known.scores}")

    async def _lend(self, http: httpx2.AsyncClient) -> None:
        """A prompt under a name that lives for one question."""
        known = self._draw()
        self._lent += 1
        name = f"lent{self._lent}"
        body = {"prompt_name": name, "prompt_path": f"{known.ask.model}.npy"}
        _json(await self._post(http, LOAD, body))
        response = await self._post(http, load.PATH, _body(known, model=name))
        self.check(known, _json(response)["choices"][0]["text"])
        _json(await self._post(http, UNLOAD, {"prompt_name": name}))
        self._refused(await self._post(http, load.PATH, _body(known, model=name)), 404)

    async def _leave(self, http: httpx2.AsyncClient) -> None:
        """A client that goes away before its answer is whole."""
        del http
        known, patience = self._draw(), self._random.expovariate(10)
        reader, writer = await self._connect(_body(known, stream=True))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(-1), patience)
        writer.transport.abort()

    async def _cut(self, http: httpx2.AsyncClient) -> None:
        """A body that ends before the length it was said to have."""
        del http
        body = json.dumps(_body(self._draw())).encode()
        _, writer = await self._connect(body[: self._random.randrange(len(body))], len(body))
        await asyncio.sleep(self._random.expovariate(20))
        writer.transport.abort()

    async def _slow(self, http: httpx2.AsyncClient) -> None:
        """A client that reads a few bytes at a time."""
        del http
        known = self._draw()
        # Others may have taken all places, which this one is not made to be told.
        reader, writer = await self._connect(_body(known, timeout=300))
        parts = []
        while part := await reader.read(64):
            parts.append(part)
            await asyncio.sleep(0.02)
        writer.close()
        head, _, content = b"".join(parts).partition(b"\r\n\r\n")
        if b" 429 " in head.partition(b"\r\n")[0]:
            self.counts["told to wait"] += 1
            return
        self.check(known, json.loads(content)["choices"][0]["text"])

    async def _connect(self, body: Any, length: int | None = None) -> Any:
        """A connection over which a request was sent; `length` is said of it where that is not the truth."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        address = urlsplit(self._url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=256)
        length = len(content) if length is None else length
        head = f"POST {load.PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        return reader, writer

    async def _unknown(self, http: httpx2.AsyncClient) -> None:
        self._refused(await self._post(http, load.PATH, _body(self._draw(), model="nobody")), 404)

    async def _field(self, http: httpx2.AsyncClient) -> None:
        wrong = self._random.choice(
            [
                {"max_tokens": "many"},
                {"temperature": -1},
                {"prompt": []},
                {"nonsense": 1},
                {"n": 10**9},
            ]
        )
        self._refused(await self._post(http, load.PATH, {**_body(self._draw()), **wrong}), 400)

    async def _long(self, http: httpx2.AsyncClient) -> None:
        body = _body(self._draw(), prompt="people " * 2000)
        self._refused(await self._post(http, load.PATH, body), 400)

    async def _garbage(self, http: httpx2.AsyncClient) -> None:
        content = self._random.choice(
            [b"{", b"", b"[1, 2", b"\xff\xfe", b'{"model": NaN}', b"[" * 10_000]
        )
        headers = {"Content-Type": "application/json"}
        self._refused(await http.post(load.PATH, content=content, headers=headers), 400)

    async def _large(self, http: httpx2.AsyncClient) -> None:
        body = _body(self._draw(), prompt="x" * _LARGE)
        self._refused(await http.post(load.PATH, json=body), 413)

    def _refused(self, response: httpx2.Response, status: int) -> None:
        """Raises Wrong unless a request was refused with this status and a sentence."""
        text = response.text[:300]
        if response.status_code != status:
            raise Wrong(f"got {response.status_code} {text}, expected {status}")
        if "Fix: " not in response.json()["error"]["message"]:
            raise Wrong(f"{text} says nothing that helps")
        self.counts["refused as they should be"] += 1


def _body(known: Known, **others: Any) -> dict[str, Any]:
    """The body of a completion; without `max_tokens` as long as answers get."""
    body = {"model": known.ask.model, "prompt": known.ask.prompt, **others}
    return {name: value for name, value in body.items() if value is not None}


def _json(response: httpx2.Response) -> Any:
    """What a request that is right was answered with."""
    if not response.is_success:
        raise Wrong(f"got {response.status_code} {response.text[:300]}")
    return response.json()


# How often each kind is sent, as shares.
_KINDS: Mapping[Callable[[Mixed, httpx2.AsyncClient], Awaitable[None]], float] = {
    Mixed._whole: 30,
    Mixed._stream: 25,
    Mixed._several: 4,
    Mixed._score: 15,
    Mixed._lend: 3,
    Mixed._leave: 8,
    Mixed._cut: 3,
    Mixed._slow: 2,
    Mixed._unknown: 3,
    Mixed._field: 3,
    Mixed._long: 1,
    Mixed._garbage: 2.5,
    Mixed._large: 0.5,
}
