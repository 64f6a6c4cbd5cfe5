"""What the engine works on for one request: its events come to the event loop, and it ends when the client has gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.engine.requests import Event, Finished, Scored, Work
from prompt_tuning.commands.serve.problems import Refused, of_deadline, of_failure

T = TypeVar("T")


class Running:
    """Some work that the engine took, all of it or none.

    Events wait here until they are asked for; there are no more of them than `max_tokens` of the request lets there be.

    Args:
      engine: The engine.
      works: The work; its numbers count from 0.

    Raises:
      ServeError: If the engine refuses one.
      Refused: If they are more than ever wait at once.
    """

    def __init__(self, engine: Engine, works: Sequence[Work]):
        if len(works) > engine.settings.queue:
            raise Refused(
                "The request asks for too much at once",
                got=f"{len(works)} answers",
                expected=f"at most {engine.settings.queue}, the texts times `n`",
                fix="send it in parts",
                param="prompt",
            )
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()

        def deliver_of(number: int) -> Any:
            return lambda event: loop.call_soon_threadsafe(self._events.put_nowait, (number, event))

        self._tickets = []
        try:
            # Room for all of them at once: no other submits meanwhile, since this loop alone does.
            for number, work in enumerate(works):
                self._tickets.append(engine.submit(work, deliver_of(number), len(works) - number))
        except BaseException:
            self.cancel()
            raise

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """Yields each event with the number of its work, until all of it has ended.

        Raises:
          Refused: If some was not done in time, or came to nothing.
        """
        left = len(self._tickets)
        while left:
            number, event = await self._events.get()
            if isinstance(event, Finished) and event.reason == "deadline":
                raise of_deadline()
            if isinstance(event, Finished) and event.reason == "error":
                raise of_failure()
            left -= isinstance(event, Finished | Scored)
            yield number, event

    def cancel(self, number: int | None = None) -> None:
        """Ends one work, or what is left of all."""
        for ticket in self._tickets if number is None else [self._tickets[number]]:
            ticket.cancel()


def deadline_of(timeout: float) -> float:
    """Returns when work is to be done that may take so many seconds from now, as `requests.Generate` has it."""
    return time.monotonic() + timeout


async def unless_gone(request: Request, running: Running, result: Coroutine[Any, Any, T]) -> T:
    """Returns what is awaited; cancels it, and what the engine does for it, if the client goes before.

    Raises:
      ClientDisconnect: If it went.
    """
    awaited = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({awaited, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            raise ClientDisconnect
        return awaited.result()
    finally:
        awaited.cancel()
        gone.cancel()
        running.cancel()


async def _gone(request: Request) -> None:
    """Returns when the client has gone; its request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def scores_of(running: Running) -> list[Scored]:
    """Returns the scores of all work, in order."""
    found: dict[int, Scored] = {}
    async for number, event in running.events():
        if isinstance(event, Scored):
            found[number] = event
    return [found[number] for number in sorted(found)]
