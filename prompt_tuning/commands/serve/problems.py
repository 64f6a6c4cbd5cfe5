"""Requests that are refused: the status, and the body that OpenAI gives an error."""

from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from prompt_tuning.commands.serve.engine.requests import (
    Draining,
    NotReady,
    QueueFull,
    ServeError,
    TooLong,
    UnknownPrompt,
)
from prompt_tuning.errors import PromptTuningError

_INVALID, _OURS = "invalid_request_error", "server_error"
# A place in the queue, or another replica, is there in about so long. Unit: seconds.
_RETRY_AFTER = {"Retry-After": "1"}
# Status, and OpenAI's `type`, `param` and `code`, of what the engine refuses.
_OF_ENGINE: dict[type[ServeError], tuple[int, str, str | None, str]] = {
    QueueFull: (429, "rate_limit_error", None, "queue_full"),
    UnknownPrompt: (404, _INVALID, "model", "model_not_found"),
    TooLong: (400, _INVALID, None, "context_length_exceeded"),
    NotReady: (503, _OURS, None, "starting"),
    Draining: (503, _OURS, None, "draining"),
}


class Refused(PromptTuningError):
    """A request that is not answered; its text goes to whoever sent it.

    Args:
      what: See `PromptTuningError`.
      status: HTTP status.
      param: The field that is wrong.
      kind: OpenAI's `type`.
      code: OpenAI's `code`.
      headers: Of the answer.
      **texts: `got`, `expected`, `fix`, `name` and `candidates` of `PromptTuningError`.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int = 400,
        param: str | None = None,
        kind: str = _INVALID,
        code: str | None = None,
        headers: dict[str, str] | None = None,
        **texts: Any,
    ):
        super().__init__(what, **texts)
        self.row, self.headers = (status, kind, param, code), headers

    @classmethod
    def saying(cls, text: str, **fields: Any) -> "Refused":
        """Returns one with a text that is complete."""
        refused = cls("", got=None, expected="", fix="", **fields)
        refused.args = (text,)
        return refused


def of_deadline() -> Refused:
    """Returns the error of an answer that was not whole in time."""
    return Refused(
        "The time that the request allows is over",
        got="an answer that is not whole",
        expected="more time, or a shorter answer",
        fix="raise `timeout`, lower `max_tokens`, or ask when fewer others do",
        status=504,
        param="timeout",
        kind=_OURS,
        code="deadline_exceeded",
        # OpenAI's clients would ask again, for an answer that would be late again.
        headers={"x-should-retry": "false"},
    )


def of_crowd(most: int) -> Refused:
    """Returns the error of a request that comes while as many as may be are under way."""
    return Refused(
        "Too many requests are under way",
        got=f"{most} before this one",
        expected="fewer",
        fix="send it again in a moment",
        status=503,
        kind=_OURS,
        code="overloaded",
        headers=_RETRY_AFTER,
    )


def of_failure() -> Refused:
    """Returns the error of what came to nothing by a mistake here, which the log tells: it may name files."""
    return Refused(
        "The server made a mistake",
        got="no answer",
        expected="one",
        fix="ask again, or read the server's log",
        status=500,
        kind=_OURS,
        code="internal_error",
    )


def told(error: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Returns the status, the body and the headers that a request which raised an error is answered with."""
    message, headers = str(error), {}
    if isinstance(error, ServeError):
        status, kind, param, code = _OF_ENGINE[type(error)]
        row = (status, kind, getattr(error, "param", param), code)
        headers = _RETRY_AFTER if status in (429, 503) else {}
    elif isinstance(error, HTTPException):
        row, headers = (error.status_code, _INVALID, None, None), dict(error.headers or {})
        message = _SENTENCES.get(error.status_code, HTTPStatus(error.status_code).phrase)
    else:
        refused = error if isinstance(error, Refused) else of_failure()
        row, headers, message = refused.row, refused.headers or {}, str(refused)
    fields = dict(zip(("type", "param", "code"), row[1:], strict=True))
    return row[0], {"error": {"message": message, **fields}}, headers


async def answer(request: Request, error: Exception) -> JSONResponse:
    """Answers a request that raised an error; a handler of Starlette's."""
    status, content, headers = told(error)
    return JSONResponse(content, status, headers)


# What Starlette itself refuses.
_SENTENCES = {
    404: "There is nothing at this path. Fix: ask for /v1/completions, or another of docs/use/serving.md.",
    405: "This path takes another method. Fix: use the one that the header Allow names.",
}
