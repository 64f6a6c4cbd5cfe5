"""Servers in processes of their own: started, waited for, watched and ended."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import httpx2

_TICKS = os.sysconf("SC_CLK_TCK")
# Programs are compiled meanwhile. Unit: seconds.
_START = 900.0


def free_port() -> int:
    """Returns a port of this machine that nobody listens on now."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as found:
        return found.getsockname()[1]


class Server:
    """A server on this machine; a context, which begins once it is ready.

    Args:
      command: What starts it, after the interpreter.
      port: Where it answers.
    """

    def __init__(self, command: Sequence[str], port: int):
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile("w+")
        # In tests JAX is told that there are eight devices.
        environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise

    def _wait(self) -> None:
        """Waits until `/health` is well."""
        until = time.monotonic() + _START
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health").is_success:
                    return
            time.sleep(0.2)
        raise SystemExit(f"{self.log()[-4000:]}\n{self._process.args}: it did not start")

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def log(self) -> str:
        """Returns what it printed."""
        self._log.seek(0)
        return self._log.read()

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds that it took so far. Linux only."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / _TICKS

    def resident_bytes(self) -> int:
        """Returns the memory that it holds now. Linux only."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.M)
        assert match is not None, status
        return int(match[1]) * 1024

    def terminate(self) -> None:
        """Tells it to stop; returns at once."""
        self._process.send_signal(signal.SIGTERM)

    def code(self, seconds: float = 120.0) -> int:
        """Waits until it has ended, and returns its exit code."""
        return self._process.wait(seconds)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        with self._process, self._log:
            pass
