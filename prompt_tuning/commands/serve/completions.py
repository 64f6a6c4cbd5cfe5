"""`POST /v1/completions`: OpenAI's legacy completion, whole or as server-sent events; `bodies.py` has its fields."""

import asyncio
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prompt_tuning.commands.serve import problems, running
from prompt_tuning.commands.serve.bodies import MAX_TIMEOUT, Completion
from prompt_tuning.commands.serve.engine.requests import Finished, Generate, Score, Scored, Token
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.commands.serve.running import Running
from prompt_tuning.commands.serve.service import Service, read
from prompt_tuning.commands.serve.texts import Answer

# A client that reads nothing for so long has gone. Unit: seconds.
_SEND_TIMEOUT = 60.0


async def complete(service: Service, request: Request) -> Response:
    """Answers one request."""
    body: Completion = await read(request, Completion)
    inputs = await asyncio.to_thread(service.texts.prompts, body.prompt)
    if body.suffix is not None:
        target = await asyncio.to_thread(service.texts.target_ids, body.suffix)
        works: list[Any] = _scores(service, body, inputs, target)
    else:
        works = _answers(service, body, inputs)
    completion = _Completion(service, body, inputs, Running(service.engine, works))
    if body.stream:
        # A client may go before the first event is asked for; then nothing of the stream has run.
        ends = BackgroundTask(completion.running.cancel)
        events = completion.stream()
        return EventSourceResponse(events, sep="\n", send_timeout=_SEND_TIMEOUT, background=ends)
    return JSONResponse(await running.unless_gone(request, completion.running, completion.whole()))


def _answers(
    service: Service, body: Completion, inputs: Sequence[tuple[int, ...]]
) -> list[Generate]:
    """What the engine is asked: `n` answers to each input, each with draws of its own."""
    seed = secrets.randbits(31) if body.seed is None else body.seed
    longest = service.longest_answer if body.max_tokens is None else body.max_tokens
    deadline = running.deadline_of(body.timeout or MAX_TIMEOUT)
    return [
        Generate(
            prompt=service.prompt_named(body.model),
            ids=ids,
            max_tokens=longest,
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=(seed + choice) % 2**31,
            logprobs=body.logprobs or 0,
            deadline=deadline,
        )
        for ids in inputs
        for choice in range(body.n or 1)
    ]


def _scores(
    service: Service, body: Completion, inputs: Sequence[tuple[int, ...]], target: tuple[int, ...]
) -> list[Score]:
    """What the engine is asked: the score of `suffix`, the target, as the answer to each input."""
    deadline = running.deadline_of(body.timeout or MAX_TIMEOUT)
    prompt = service.prompt_named(body.model)
    return [Score(prompt, ids, (target,), deadline, field="suffix") for ids in inputs]


class _Completion:
    """The answers of one request.

    Args:
      service: What every endpoint is given.
      body: The request.
      inputs: Its inputs, as ids.
      running: What the engine does for it.
    """

    def __init__(
        self,
        service: Service,
        body: Completion,
        inputs: Sequence[tuple[int, ...]],
        running: Running,
    ):
        self.running = running
        self._service, self._body = service, body
        self._began = time.monotonic()
        self._num_inputs = sum(map(len, inputs))
        count = len(inputs) * (body.n or 1)
        self._answers = [Answer(service.texts, body.stops, body.logprobs) for _ in range(count)]
        self._fields = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    async def whole(self) -> dict[str, Any]:
        """Returns the body of an answer that is sent whole."""
        async for _ in self._progress():
            pass
        choices = [{"index": i, **(a.take() or {})} for i, a in enumerate(self._answers)]
        return {**self._fields, "choices": choices, "usage": self._usage()}

    async def stream(self) -> AsyncIterator[dict[str, str]]:
        """Yields the events of an answer that is sent as it comes."""
        options = self._body.stream_options
        counts = bool(options and options.include_usage)
        unused = {"usage": None} if counts else {}
        try:
            async for index in self._progress():
                if (new := self._answers[index].take()) is not None:
                    choice = {"index": index, **new}
                    yield _event({**self._fields, "choices": [choice], **unused})
            if counts:
                yield _event({**self._fields, "choices": [], "usage": self._usage()})
            yield {"data": "[DONE]"}
        except Refused as error:
            # The status has been sent; OpenAI's clients look for this.
            yield _event(problems.told(error)[1])
        finally:
            self.running.cancel()

    async def _progress(self) -> AsyncIterator[int]:
        """Yields the index of each answer that has become longer, or has ended."""
        is_first = True
        async for index, event in self.running.events():
            answer = self._answers[index]
            if is_first and isinstance(event, Token):
                self._service.meters.first_token.observe(time.monotonic() - self._began)
                is_first = False
            if answer.reason is not None:
                continue
            if isinstance(event, Token):
                answer.add(event)
                if answer.reason is not None:
                    self.running.cancel(index)
            elif isinstance(event, Scored):
                target = self._service.texts.target_ids(self._body.suffix or "")
                for id, logprob in zip(target, event.targets[0][1], strict=True):
                    answer.add(Token(id, logprob))
                answer.reason = "length"
            elif isinstance(event, Finished):
                answer.reason = event.reason
            yield index

    def _usage(self) -> dict[str, int]:
        """Tokens of the inputs, each counted once, and of the answers without EOS."""
        num_answers = sum(answer.num_tokens for answer in self._answers)
        return {
            "prompt_tokens": self._num_inputs,
            "completion_tokens": num_answers,
            "total_tokens": self._num_inputs + num_answers,
        }


def _event(content: dict[str, Any]) -> dict[str, str]:
    """A server-sent event."""
    return {"data": json.dumps(content, ensure_ascii=False)}
