"""The folder of prompts that may be loaded while the server runs: each is served by the name of its file."""

import itertools
import pathlib
import re
import threading
from typing import Any

from absl import logging

from prompt_tuning.commands.serve.bodies import BARE, NAME, NAMES_ARE
from prompt_tuning.commands.serve.engine.engine import Engine
from prompt_tuning.commands.serve.problems import Refused
from prompt_tuning.errors import ConfigError, PromptTuningError

# What `export` writes beside a prompt, and what a writer has not finished.
_NO_PROMPTS = frozenset({".json", ".tmp"})
# Of a folder, so many files and folders are looked at.
_MOST_PARTS = 10_000


class PromptsFolder:
    """Prompts below one folder, links followed; of what requests name, nothing else of the machine is read.

    Args:
      root: The folder, as `find_folder` returns it.
      engine: Whose prompts they become.
    """

    def __init__(self, root: pathlib.Path, engine: Engine):
        self._root, self._engine = root, engine
        # One at a time: a request and a look at the folder may mean the same name.
        self._lock = threading.Lock()
        # By name: what its entry looked like when it was last read, whether that could be loaded or not.
        self._seen: dict[str, Any] = {}
        self._loaded: set[str] = set()
        self._refused: set[str] = set()

    def load(self, name: str, path: str) -> None:
        """Loads what a request names, in place of what has the name; reads files, so not for an event loop.

        Args:
          name: Its name, in the form of `NAME`.
          path: Counts from the folder.

        Raises:
          Refused: If the path, or something inside it, leads out of the folder, or to no prompt of this model.
        """
        with self._lock:
            try:
                found = (self._root / path).resolve()
                is_inside = found != self._root and found.exists() and self._is_inside(found)
            # A null character, a name that is too long, links in a circle.
            except (OSError, ValueError, RuntimeError):
                is_inside, found = False, self._root
            if not is_inside:
                raise _refusal("`prompt_path` leads to no prompt", path[:80])
            try:
                self._engine.load(name, str(found))
                # From now on it is the requests', and no look's.
                self._loaded.discard(name)
            except PromptTuningError as error:
                logging.warning("Not loaded as %s: %s", name, error)
                raise Refused.saying(self._told(error), param="prompt_path") from error

    def unload(self, name: str) -> None:
        """Forgets a prompt until it is loaded again or its entry in the folder changes.

        Raises:
          UnknownPrompt: If there is none.
        """
        with self._lock:
            self._engine.unload(name)
            self._loaded.discard(name)

    def look(self) -> int:
        """Loads what is new or has changed since the last look, unloads what is gone; reads files.

        An entry that cannot be loaded is told in the log, once as long as it stays as it is; what its name stood for
        before still answers.

        Returns:
          How many entries there are that could not be loaded.
        """
        with self._lock:
            entries = self._entries()
            for name in self._seen.keys() - entries.keys():
                self._forget(name)
            for name, entry in entries.items():
                # What could not be loaded may be a folder that is still being copied, and is looked at on all levels.
                # Of the others one is enough: below it a run that goes on writes much, and no new checkpoint.
                pattern = "**/*" if name in self._refused else "*"
                if _appearance(entry, pattern) != self._seen.get(name, "never"):
                    # Before it is read: what is written meanwhile is seen the next time.
                    looks = {p: _appearance(entry, p) for p in ("*", "**/*")}
                    self._read(name, entry)
                    self._seen[name] = looks["**/*" if name in self._refused else "*"]
            return len(self._refused)

    def _entries(self) -> dict[str, pathlib.Path]:
        """What may be prompts, by name: a file's without its suffix; of two the one that comes first."""
        entries: dict[str, pathlib.Path] = {}
        for entry in sorted(self._root.iterdir()):
            if not entry.name.startswith(".") and entry.suffix not in _NO_PROMPTS:
                entries.setdefault(entry.name if entry.is_dir() else entry.stem, entry)
        return entries

    def _read(self, name: str, entry: pathlib.Path) -> None:
        """Loads an entry, if it is one."""
        self._refused.discard(name)
        try:
            check_name(name)
            if name in self._engine.names() and name not in self._loaded:
                raise ConfigError(
                    "Another prompt has this name",
                    got=name,
                    expected="a name that neither --prompts nor a request has taken",
                    fix="rename the file",
                )
            if not self._is_inside(entry.resolve()):
                raise _refusal("It leads out of the folder", entry.name)
            self._engine.load(name, str(entry))
            self._loaded.add(name)
            logging.info("Loaded %s from %s", name, entry)
        # Whatever lies there, the others are served.
        except Exception as error:
            self._refused.add(name)
            logging.error("%r is not served: %s", str(entry), error)

    def _forget(self, name: str) -> None:
        """Unloads a prompt whose entry is gone."""
        del self._seen[name]
        self._refused.discard(name)
        if name in self._loaded:
            self._loaded.discard(name)
            if name in self._engine.names():
                self._engine.unload(name)
            logging.info("Unloaded %s", name)

    def _is_inside(self, path: pathlib.Path) -> bool:
        """Whether a path without links, and all that it holds, lies below the folder."""
        inside = (p.resolve().is_relative_to(self._root) for p in path.rglob("*"))
        return path.is_relative_to(self._root) and all(inside)

    def _told(self, error: PromptTuningError) -> str:
        """What a request is told of an error, whose text may name files of this machine."""
        text = str(error).replace(f"{self._root}/", "")
        if re.search(r"(^|[^\w.])/\w|://", text):
            return "This is no prompt of this model. Fix: read in the server's log why it was not loaded."
        return text


def find_folder(path: str) -> pathlib.Path:
    """Returns a folder without links.

    Raises:
      ConfigError: If there is no such folder.
    """
    root = pathlib.Path(path).resolve()
    if not root.is_dir():
        raise ConfigError(
            "--prompts_dir names no folder",
            got=path,
            expected="a folder of this machine",
            fix="make it, or correct the path",
        )
    return root


def _refusal(what: str, got: str) -> Refused:
    return Refused(
        what,
        got=got,
        expected="a prompt below the folder of --prompts_dir, links followed",
        fix="put one of this model there that `prompt-tuning export` takes",
        param="prompt_path",
    )


def check_name(name: str) -> None:
    """Raises ConfigError for a name that no prompt may have."""
    if not re.fullmatch(NAME, name) or name == BARE:
        raise ConfigError(
            "No prompt may have this name",
            got=name[:80],
            expected=f"{NAMES_ARE}, and not {BARE!r}",
            fix="choose another",
        )


def _appearance(entry: pathlib.Path, pattern: str) -> Any:
    """What changes when an entry is written again: times and sizes, of a folder those of what it holds."""
    try:
        parts = [entry, *sorted(itertools.islice(entry.glob(pattern), _MOST_PARTS))]
        return [(str(p), s.st_mtime_ns, s.st_size, s.st_ino) for p in parts for s in (p.stat(),)]
    # It was removed meanwhile, or is a link to nothing.
    except OSError:
        return None
