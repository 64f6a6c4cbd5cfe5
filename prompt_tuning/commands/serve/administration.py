"""The endpoints beside the answers: which prompts there are, load and unload, whether requests are taken."""

import asyncio
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from prompt_tuning.commands.serve.bodies import BARE, Loading, Unloading
from prompt_tuning.commands.serve.service import Service, read

_STARTED = int(time.time())


async def models(service: Service, request: Request) -> JSONResponse:
    """`GET /v1/models`: the bare model and every prompt, as OpenAI lists models."""
    data = [_model(name) for name in (BARE, *service.engine.names())]
    return JSONResponse({"object": "list", "data": data})


async def model(service: Service, request: Request) -> JSONResponse:
    """`GET /v1/models/{model}`: one of them."""
    name = request.path_params["model"]
    if name != BARE:
        service.engine.tuned(name)
    return JSONResponse(_model(name))


def _model(name: str) -> dict[str, Any]:
    """One model as OpenAI has it; `parent` is vLLM's field for what adapters belong to."""
    parent = None if name == BARE else BARE
    fields = {"id": name, "object": "model", "created": _STARTED, "owned_by": "prompt-tuning"}
    return {**fields, "parent": parent}


async def health(service: Service, request: Request) -> JSONResponse:
    """`GET /health`: 200 as long as requests are taken; 503 until all is compiled, and once the engine has failed.

    From SIGTERM on no new connection is taken, so that hardly anybody gets to ask.
    """
    is_ready = service.engine.is_ready
    return JSONResponse({"status": "ok" if is_ready else "unavailable"}, 200 if is_ready else 503)


async def metrics(service: Service, request: Request) -> Response:
    """`GET /metrics`."""
    return service.meters.response()


async def load(service: Service, request: Request) -> JSONResponse:
    """`POST /v1/load_prompt`: below --prompts_dir, as vLLM loads its adapters."""
    body: Loading = await read(request, Loading)
    assert service.folder is not None
    await asyncio.to_thread(service.folder.load, body.prompt_name, body.prompt_path)
    return JSONResponse(_model(body.prompt_name))


async def unload(service: Service, request: Request) -> JSONResponse:
    """`POST /v1/unload_prompt`."""
    body: Unloading = await read(request, Unloading)
    assert service.folder is not None
    await asyncio.to_thread(service.folder.unload, body.prompt_name)
    return JSONResponse({"id": body.prompt_name, "object": "model", "deleted": True})
