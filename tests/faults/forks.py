"""Commands in processes of their own that cost little: a server imports the libraries once and forks for each command.

What a command does to its process (a crash, a hang, memory, a kill, a disk that fails) then stays in it.
"""

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from typing import Any

from tests.faults.disk import Disk
from tests.helpers import REPO

# Imported before anything forks; another version of the package may lack some.
_MODULES = (
    "jax",
    "tensorflow_text",
    "clu.metric_writers",
    "prompt_tuning.train",
    "prompt_tuning.infer",
    "prompt_tuning.evaluate",
    "prompt_tuning.predict",
    "prompt_tuning.config.resolve",
    "prompt_tuning.commands.convert",
    "prompt_tuning.commands.export.command",
    "prompt_tuning.commands.similarity",
    "prompt_tuning.commands.plan.run_step",
    "prompt_tuning.commands.tasks.views",
    "prompt_tuning.commands.sweep.expansion",
    "prompt_tuning.commands.ensemble.voting",
    "prompt_tuning.commands.inspect.analysis",
)
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "NO_GCE_CHECK": "true",
}
_KIB = 1024
_GIB = 2**30
# More than a command on a tiny model takes beyond what the libraries take, XLA's threads and their stacks included.
_MEMORY = 6 * _GIB
_TRACEBACK = "Traceback (most recent call last)"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
      code: Exit code; negative: the signal that ended it.
      output: What it printed, standard error included.
      seconds: How long it took.
      mebibytes: The most memory that it held, the libraries' included.
      is_hung: Whether it was ended for the time it took.
    """

    code: int
    output: str
    seconds: float
    mebibytes: float
    is_hung: bool
    asked: int = 0

    @property
    def is_told(self) -> bool:
        """Whether it ended as commands end: not by a traceback, a signal or a hang."""
        return _TRACEBACK not in self.output and self.code >= 0 and not self.is_hung

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return (self.output.strip().splitlines() or [""])[-1]


class Server:
    """Runs commands, one at a time; a context."""

    def __enter__(self) -> "Server":
        """Starts importing; the first command waits for it."""
        self._programs = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        kept = os.environ.get("JAX_COMPILATION_CACHE_DIR", self._programs.name)
        environment = {**os.environ, **_ENVIRONMENT, "JAX_COMPILATION_CACHE_DIR": kept}
        # What JAX calls devices is many in the tests, and one here.
        environment.pop("XLA_FLAGS", None)
        paths = [str(REPO), environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._programs.cleanup()

    def run(
        self,
        argv: Sequence[str],
        *,
        folder: pathlib.Path,
        seconds: float = 300.0,
        kill_after: float | None = None,
        disk: dict[str, Any] | None = None,
    ) -> Outcome:
        """Runs one command.

        Args:
          argv: Command and flags.
          folder: Where it runs.
          seconds: What takes longer hangs.
          kill_after: Seconds after which it is killed with the processes that it started; None: not at all.
          disk: Arguments of a `Disk` that it meets.
        """
        job = {"argv": list(argv), "folder": str(folder), "seconds": seconds, "disk": disk}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({**job, "kill_after": kill_after}) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def _serve() -> None:
    """Answers the commands on standard input, one a line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        answers.write(json.dumps(_run(json.loads(line))) + "\n")
        answers.flush()


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Forks, waits, and returns the fields of an `Outcome`."""
    with tempfile.TemporaryFile() as printed:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(job, printed.fileno())
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        is_hung = is_killed = False
        limit = job["seconds"] if job["kill_after"] is None else job["kill_after"]
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            if not is_killed and time.monotonic() - began > limit:
                is_killed, is_hung = True, job["kill_after"] is None
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.003)
        seconds = time.monotonic() - began
        # Workers of a sweep outlive it by a moment.
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        printed.seek(0)
        output = printed.read().decode(errors="replace")
    asked = output.rpartition("\nasked of the disk: ")[2].strip() if job["disk"] else ""
    return {
        "code": os.waitstatus_to_exitcode(ended[1]),
        "output": output,
        "seconds": seconds,
        "mebibytes": ended[2].ru_maxrss / _KIB,
        "is_hung": is_hung,
        "asked": int(asked) if asked.isdecimal() else 0,
    }


def _become(job: dict[str, Any], printed: int) -> None:
    """Is the command, in the forked process; never returns."""
    code = 1
    disk = None
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        os.chdir(job["folder"])
        status = pathlib.Path("/proc/self/status").read_text()
        held = int(status.partition("VmData:")[2].split()[0]) * _KIB
        resource.setrlimit(resource.RLIMIT_DATA, (held + _MEMORY, resource.RLIM_INFINITY))
        from prompt_tuning import cli

        sys.argv = ["prompt-tuning", *job["argv"]]
        if job["disk"]:
            disk = Disk(setattr, **job["disk"])
        code = cli.main(job["argv"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        if disk is not None:
            print(f"\nasked of the disk: {disk.asked}")
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    _serve()
