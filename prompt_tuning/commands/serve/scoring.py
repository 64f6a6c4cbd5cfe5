"""`POST /v1/score`: which of some labels is the likeliest answer, as rank classification decides."""

import asyncio
import math
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from prompt_tuning.commands.serve import running
from prompt_tuning.commands.serve.bodies import MAX_TIMEOUT, Scoring
from prompt_tuning.commands.serve.engine.requests import Score, Scored
from prompt_tuning.commands.serve.running import Running
from prompt_tuning.commands.serve.service import Service, read


async def score(service: Service, request: Request) -> JSONResponse:
    """Answers one request: for each text the log-likelihood of each label in nats, and its share among the labels."""
    body: Scoring = await read(request, Scoring)
    inputs = await asyncio.to_thread(service.texts.prompts, body.prompt)
    targets = tuple(await asyncio.to_thread(lambda: [*map(service.texts.target_ids, body.labels)]))
    deadline = running.deadline_of(body.timeout or MAX_TIMEOUT)
    prompt = service.prompt_named(body.model)
    works = [Score(prompt, ids, targets, deadline) for ids in inputs]
    work = Running(service.engine, works)
    scored = await running.unless_gone(request, work, running.scores_of(work))
    num_inputs, num_targets = sum(map(len, inputs)), len(inputs) * sum(map(len, targets))
    usage = {
        "prompt_tokens": num_inputs,
        "completion_tokens": num_targets,
        "total_tokens": num_inputs + num_targets,
    }
    data = [{"index": i, **_compared(body.labels, s)} for i, s in enumerate(scored)]
    return JSONResponse({"object": "list", "model": body.model, "data": data, "usage": usage})


def _compared(labels: list[str], scored: Scored) -> dict[str, Any]:
    """The labels with their scores, and the likeliest of them; of equal ones the first."""
    logprobs = [logprob for logprob, _ in scored.targets]
    most = max(logprobs)
    weights = [math.exp(x - most) for x in logprobs]
    rows = [
        {"label": label, "logprob": logprob, "probability": weight / sum(weights)}
        for label, logprob, weight in zip(labels, logprobs, weights, strict=True)
    ]
    return {"best": labels[logprobs.index(most)], "scores": rows}
