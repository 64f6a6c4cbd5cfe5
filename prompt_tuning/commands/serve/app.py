"""The ASGI application: which path is answered by what, and what stands before all of them."""

import functools
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prompt_tuning.commands.serve import administration, completions, page, problems, scoring
from prompt_tuning.commands.serve.engine.requests import ServeError
from prompt_tuning.commands.serve.metrics import Meters
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.commands.serve.service import Service

_KEYED = "/v1/"
# Requests that may be under way, and those that are answered all the same: probes would have a busy server restarted.
_MOST, _ALWAYS = 512, frozenset({"/health", "/metrics"})
# nginx's status of a client that went; nobody reads it.
_GONE = 499


def make_app(
    service: Service,
    keys: frozenset[str],
    hosts: Sequence[str] = ("*",),
    lifespan: Any = None,
) -> Starlette:
    """Returns the application.

    Args:
      service: What every endpoint is given.
      keys: Of which a request below /v1 names one; none lets every request pass.
      hosts: What the server may be called in the header Host; "*" for anything.
      lifespan: What runs before the first and after the last request; Starlette's.
    """
    endpoints: list[tuple[str, str, Callable[..., Any]]] = [
        ("POST", "/v1/completions", completions.complete),
        ("POST", "/v1/score", scoring.score),
        ("GET", "/v1/models", administration.models),
        ("GET", "/v1/models/{model}", administration.model),
        ("GET", "/health", administration.health),
        ("GET", "/metrics", administration.metrics),
    ]
    if service.folder is not None:
        endpoints += [
            ("POST", "/v1/load_prompt", administration.load),
            ("POST", "/v1/unload_prompt", administration.unload),
        ]
    routes = [
        Route(path, functools.partial(endpoint, service), methods=[method])
        for method, path, endpoint in endpoints
    ]
    routes += page.routes(service.engine)
    refusals = (Refused, ServeError, HTTPException, Exception)
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(
                _Door, meters=service.meters, keys=keys, paths={route.path for route in routes}
            ),
            # Else a page of another site could give its own name this machine's address, and ask as if it were ours.
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
        ],
        exception_handlers={ClientDisconnect: _gone, **dict.fromkeys(refusals, problems.answer)},
        lifespan=lifespan,
    )


async def _gone(request: Any, error: Exception) -> Response:
    """Ends a request whose client has gone."""
    return Response(status_code=_GONE)


class _Door:
    """What every request passes: the key is looked at before anything is read, the answer is counted.

    Args:
      app: What it leads to.
      meters: What counts.
      keys: See `make_app`.
      paths: What there is.
    """

    def __init__(self, app: ASGIApp, meters: Meters, keys: frozenset[str], paths: set[str]):
        self._app, self._meters, self._paths = app, meters, paths
        self._under_way = 0
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), 500
        counted = int(scope["path"] not in _ALWAYS)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # What is sent is what it says it is: no browser is to take a text for a page.
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            await send(message)

        self._under_way += counted
        try:
            if scope["path"].startswith(_KEYED) and not self._is_known(Headers(scope=scope)):
                error = Refused(
                    "The request names no key of this server",
                    got="no such key",
                    expected="the header Authorization: Bearer KEY, with a key of --api_key_file",
                    fix="ask whoever runs the server for one",
                    status=401,
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await (await problems.answer(Request(scope), error))(scope, receive, noted)
            elif counted and self._under_way > _MOST:
                error = problems.of_crowd(_MOST)
                await (await problems.answer(Request(scope), error))(scope, receive, noted)
            else:
                await self._app(scope, receive, noted)
        finally:
            self._under_way -= counted
            # Whatever else is asked for would make figures without end.
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._meters.requests.labels(path, status).inc()
            self._meters.seconds.labels(path).observe(time.monotonic() - began)

    def _is_known(self, headers: Headers) -> bool:
        """Whether a request names a key, in a time that does not depend on how much of it is right."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        named = key.strip().encode("latin-1", "replace") if kind.lower() == "bearer" else b""
        # All of them are compared, whichever is right.
        return not self._keys or any([hmac.compare_digest(named, known) for known in self._keys])
