"""Clients that ask at once, and how long they waited."""

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence

import httpx2
import numpy as np

from prompt_tuning.launch.benchmarks.serving.subject import Ask

PATH = "/v1/completions"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
      text: The answer.
      seconds: Until it was whole.
      first: Seconds until its first token; None where answers come whole.
    """

    text: str
    seconds: float
    first: float | None


@dataclasses.dataclass(frozen=True)
class Round:
    """What some clients measured.

    Attributes:
      answers: In the order of the questions.
      seconds: From the first question to the last answer.
    """

    answers: list[Answer]
    seconds: float


def drive(url: str, asks: Sequence[Ask], clients: int, *, streams: bool) -> Round:
    """Asks everything, each client the next question as soon as it has an answer.

    Args:
      url: The server.
      asks: The questions.
      clients: How many ask at once, each over a connection that stays.
      streams: Whether answers come token by token.
    """
    return asyncio.run(_drive(url, asks, clients, streams))


async def _drive(url: str, asks: Sequence[Ask], clients: int, streams: bool) -> Round:
    left = iter(enumerate(asks))
    answers: dict[int, Answer] = {}
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(base_url=url, timeout=600, limits=limits) as http:

        async def client() -> None:
            for number, ask in left:
                answers[number] = await (_stream if streams else _whole)(http, ask)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
    return Round([answers[number] for number in range(len(asks))], seconds)


async def _whole(http: httpx2.AsyncClient, ask: Ask) -> Answer:
    """Asks for an answer in one piece."""
    began = time.perf_counter()
    response = await http.post(PATH, json=dataclasses.asdict(ask))
    response.raise_for_status()
    text = response.json()["choices"][0]["text"]
    return Answer(text, time.perf_counter() - began, None)


async def _stream(http: httpx2.AsyncClient, ask: Ask) -> Answer:
    """Asks for an answer token by token."""
    began, first, parts = time.perf_counter(), None, []
    body = {**dataclasses.asdict(ask), "stream": True}
    async with http.stream("POST", PATH, json=body) as response:
        response.raise_for_status()
        async for text in texts(response):
            first = time.perf_counter() - began if first is None else first
            parts.append(text)
    return Answer("".join(parts), time.perf_counter() - began, first)


async def texts(response: httpx2.Response):
    """Yields the texts of a stream's events.

    Raises:
      ConnectionError: If it does not end as streams do.
    """
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                raise ConnectionError(event["error"]["message"])
            for choice in event["choices"]:
                yield choice["text"]
    raise ConnectionError("the stream ended early")


def milliseconds(seconds: Sequence[float], *quantiles: float) -> list[float]:
    """Returns quantiles of some times, in milliseconds."""
    return [1000 * float(np.quantile(seconds, q)) for q in quantiles]
