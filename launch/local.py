"""Runs a command in several processes on this machine, and again after a preemption.

    python -m prompt_tuning.launch.local --processes=2 --devices_per_process=4 --restart -- train --gin_file=... ...

Everything after `--` is handed to `prompt-tuning` as it is, and the flags by which the processes find one another are
added. Each line they print gets the number of its process in front. When one process fails the others are ended, and
none outlives this one.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from prompt_tuning.config.flags import whole_number
from prompt_tuning.launch import processes
from prompt_tuning.run.preemption import EXIT_CODE

PROGRAM = (sys.executable, "-u", "-m", "prompt_tuning")
# After one process has ended with an error, or all were told to stop, the others have so long. Unit: seconds.
_GRACE = 20.0
_POLL = 0.05
# Asks for SIGKILL at the parent's death (PR_SET_PDEATHSIG), which may have come already, and becomes the command.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9);"
    " os.getppid() == int(sys.argv[1]) or os._exit(1); os.execv(sys.argv[2], sys.argv[2:])"
)


class Launcher:
    """The processes of one command.

    Args:
      command: What `prompt-tuning` is given.
      count: How many.
      devices_per_process: Virtual CPU devices of each; None leaves the devices alone.
    """

    def __init__(self, command: Sequence[str], count: int, devices_per_process: int | None):
        """Starts nothing yet."""
        self._command = list(command)
        self._count = count
        self._env = dict(os.environ)
        if devices_per_process is not None:
            flag = f"--xla_force_host_platform_device_count={devices_per_process}"
            self._env["XLA_FLAGS"] = f"{self._env.get('XLA_FLAGS', '')} {flag}".strip()
            self._env["JAX_PLATFORMS"] = "cpu"
        self._running: list[subprocess.Popen[str]] = []
        self.signal_received: int | None = None

    def run_once(self) -> int:
        """Starts all processes and waits until all have ended.

        Returns:
          The exit code for all: 0, else that of an error that a user can mend, else that of a preemption, else that of
          the first to fail.
        """
        address = f"127.0.0.1:{_free_port()}"
        started = [self._start(index, address) for index in range(self._count)]
        self._running = [process for process, _ in started]
        try:
            codes = self._wait()
        finally:
            for process in self._running:
                processes.kill(process)
            for _, printer in started:
                printer.join()
        failed = [code for code in codes if code != 0]
        told = [code for code in (processes.USER_ERROR, EXIT_CODE) if code in failed]
        return next(iter(told + failed), 0)

    def forward(self, signum: int, frame: object) -> None:
        """Signal handler: hands the signal on to every process, once to each."""
        del frame
        self.signal_received = signum
        for process in self._running:
            if process.poll() is None:
                process.send_signal(signum)

    def _wait(self) -> list[int]:
        """Waits until all have ended; returns their exit codes in that order. Kills those that take too long."""
        left, codes, deadline = list(self._running), [], None
        while left:
            ended = [process for process in left if process.poll() is not None]
            left = [process for process in left if process not in ended]
            codes += [_exit_code(process) for process in ended]
            if deadline is None and (any(codes) or self.signal_received is not None):
                deadline = time.monotonic() + _GRACE
            if deadline is not None and time.monotonic() > deadline:
                for process in left:
                    processes.kill(process)
            time.sleep(_POLL)
        return codes

    def _start(self, index: int, address: str) -> tuple[subprocess.Popen[str], threading.Thread]:
        """Starts one process; its lines get its number."""
        joining = [
            "--multiprocess_gpu",
            f"--coordinator_address={address}",
            f"--process_count={self._count}",
            f"--process_index={index}",
        ]
        command = [*_dying_with_this(), *PROGRAM, *self._command]
        command += joining if self._count > 1 else []
        return processes.start(command, env=self._env, prefix=f"[{index}] ")


def _dying_with_this() -> list[str]:
    """Words before a command with which the kernel kills it when this process dies; Linux only."""
    if not sys.platform.startswith("linux"):
        return []
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]


def _exit_code(process: subprocess.Popen[str]) -> int:
    """The exit code as a shell shows it: 128 + the signal for a process that died of one."""
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command until it is done.

    Args:
      argv: Flags, `--`, and the command; None takes those of the process.

    Returns:
      The exit code of the last attempt.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--processes", type=whole_number(1), default=1, help="how many processes")
    add("--devices_per_process", type=whole_number(1), help="virtual CPU devices of each process")
    add(
        "--restart",
        action="store_true",
        help=f"start again after a preemption (exit code {EXIT_CODE}), and after at most --max_crashes crashes",
    )
    add("--max_crashes", type=whole_number(0), default=3, help="3 if not given")
    add("command", nargs="+", help="command and flags of prompt-tuning, after --")
    flags = parser.parse_args(argv)
    launcher = Launcher(flags.command, flags.processes, flags.devices_per_process)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, launcher.forward)
    crashes = 0
    while True:
        code = launcher.run_once()
        is_preemption = code == EXIT_CODE
        crashes += not is_preemption
        may_restart = (
            flags.restart and code not in (0, processes.USER_ERROR) and crashes <= flags.max_crashes
        )
        if launcher.signal_received is not None or not may_restart:
            return code
        what = "was told to stop" if is_preemption else f"failed with exit code {code}"
        print(f"The run {what}; starting again", flush=True)


if __name__ == "__main__":
    sys.exit(main())
