"""The page at `/`, from files of the package alone, and the nearest words of a prompt, which it shows."""

import asyncio
import functools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from prompt_tuning import tree
from prompt_tuning.commands.inspect import frozen_tokens, neighbours
from prompt_tuning.commands.inspect.frozen_tokens import FrozenTokens
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.engine.requests import QueueFull, UnknownPrompt
from prompt_tuning.params.names import EMBEDDING

_COMMANDS = epath.resource_path("prompt_tuning") / "commands"
# Path -> type, and the files that it is made of; the colours are those of `report`.
_FILES = {
    "/": ("text/html", ["serve/assets/page.html"]),
    "/page.css": ("text/css", ["report/assets/look.css", "serve/assets/page.css"]),
    "/page.js": ("text/javascript", ["serve/assets/page.js"]),
}
# Whatever a prompt is called or answers, the page runs its own script alone and asks nobody but its server.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A new release is seen at once.
    "Cache-Control": "no-cache",
}
# As many as `prompt-tuning inspect` shows.
_TOP = 5
# Answers of 100 rows are 30 KB.
_KEPT = 256
_WAITING = 16


def routes(engine: Engine) -> list[Route]:
    """Returns the routes of the page's files and of `/v1/prompts/{name}/neighbours`."""
    words = NearestWords(engine)

    async def answer(request: Request) -> Response:
        found = await words.of(request.path_params["name"])
        return Response(found, media_type="application/json")

    files = [_route(path, *_FILES[path]) for path in _FILES]
    return [*files, Route("/v1/prompts/{name:path}/neighbours", answer)]


def _route(path: str, media_type: str, names: list[str]) -> Route:
    """The route of one file of the page, which is read once."""
    content = "".join((_COMMANDS / name).read_text() for name in names)

    async def answer(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, answer)


class NearestWords:
    """The nearest words of each row of a prompt, as `prompt-tuning inspect` finds them: once a prompt, one at a time.

    Args:
      engine: Has the prompts and the frozen embeddings, which are kept as float32 on the host once words are asked for.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        # The products take all cores for a moment: one at a time leaves some to the answers.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="neighbours")
        self._waiting = 0
        self._kept: dict[str, bytes] = {}

    async def of(self, name: str) -> bytes:
        """Returns a JSON object: `rows`, each with its number from 0 and its `neighbours`: `token`, cosine `distance`.

        Args:
          name: A prompt's.

        Raises:
          UnknownPrompt: If none of this name is loaded, or it is none.
          QueueFull: If too many wait.
        """
        if self._waiting >= _WAITING:
            raise QueueFull(
                "Too many ask for nearest words at once",
                got=self._waiting,
                expected=f"fewer than {_WAITING}",
                fix="ask again in a second",
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, self._find, name)
        finally:
            self._waiting -= 1

    def _find(self, name: str) -> bytes:
        """Finds them, or what was found for the same numbers before."""
        tuned = self._engine.tuned(name)
        if tuned.prompt is None:
            raise UnknownPrompt(
                "Nearest words are those of a prompt's rows",
                got=f"{name}, which has no prompt",
                expected="a prompt",
                fix="ask for another",
            )
        key = tuned.digest()
        if key not in self._kept:
            if len(self._kept) == _KEPT:
                del self._kept[next(iter(self._kept))]
            found = neighbours.find_nearest(tuned.prompt, self._tokens.blocks(), _TOP)
            rows = [
                {"row": row, "neighbours": self._told(*of_row)}
                for row, of_row in enumerate(zip(*found, strict=True))
            ]
            self._kept[key] = json.dumps({"rows": rows}).encode()
        return self._kept[key]

    def _told(self, ids: np.ndarray, distances: np.ndarray) -> list[dict[str, object]]:
        """The neighbours of one row."""
        return [
            {"token": self._tokens.text_of(int(id_)), "distance": round(float(distance), 4)}
            for id_, distance in zip(ids, distances, strict=True)
        ]

    @functools.cached_property
    def _tokens(self) -> FrozenTokens:
        embedding = np.asarray(tree.flatten(self._engine.params)[EMBEDDING], np.float32)
        return frozen_tokens.make_tokens(embedding, self._engine.model.input_vocabulary)
