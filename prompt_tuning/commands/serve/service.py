"""What every endpoint is given, and how each reads its request."""

import asyncio
import dataclasses
from typing import Any

from starlette.requests import Request

from prompt_tuning.commands.serve import bodies
from prompt_tuning.commands.serve.bodies import Body
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.folder import PromptsFolder
from prompt_tuning.commands.serve.metrics import Meters
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.commands.serve.texts import Texts

# Unit: bytes.
MAX_BODY = 2**20
# What a client sends beyond the limit is read as far as this, so that it gets to read the answer. Unit: bytes.
_DISCARDED = 16 * MAX_BODY
# Unit: seconds.
_READ_TIMEOUT = 30.0


@dataclasses.dataclass(frozen=True)
class Service:
    """The engine and what is around it.

    Attributes:
      engine: The engine.
      texts: The model's vocabularies.
      meters: What is counted here.
      folder: Prompts that may be loaded while this runs; None for none.
    """

    engine: Engine
    texts: Texts
    meters: Meters
    folder: PromptsFolder | None = None

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer."""
        return self.engine.settings.output_length

    def prompt_named(self, model: str) -> str | None:
        """Returns the prompt that a request's `model` stands for; None for none."""
        return None if model == bodies.BARE else model


async def read(request: Request, kind: type[Body]) -> Any:
    """Returns the body of a request.

    Raises:
      Refused: If it is too large, too slow or not of this kind.
      ClientDisconnect: If the client went before it was whole.
    """
    sent = request.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != "application/json":
        # Also what keeps pages of other sites out: a browser lets them send no such request unasked.
        raise Refused(
            "The body is not said to be JSON",
            got=sent[:80],
            expected="the header Content-Type: application/json",
            fix="add the header",
            status=415,
        )
    try:
        async with asyncio.timeout(_READ_TIMEOUT):
            content = await _content(request)
    except TimeoutError:
        raise Refused(
            "The body did not arrive in time",
            got="a part of it",
            expected=f"all of it within {_READ_TIMEOUT:g} seconds",
            fix="send it at once",
            status=408,
        ) from None
    return bodies.read(kind, content)


async def _content(request: Request) -> bytes:
    """The body, whether its length was said before or not."""
    content, size = bytearray(), 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY:
            content += part
        elif size > _DISCARDED:
            break
    if size > MAX_BODY:
        raise Refused(
            "The body is too large",
            got=f"more than {MAX_BODY} bytes",
            expected=f"at most {MAX_BODY}",
            fix="send fewer or shorter texts in one request",
            status=413,
            headers={"Connection": "close"},
        )
    return bytes(content)
