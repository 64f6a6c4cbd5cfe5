"""Processes whose output is shown as it comes; imports nothing that has to be installed."""

import os
import signal
import subprocess
import sys
import threading

# What `prompt-tuning` returns for an error that another attempt would meet again.
USER_ERROR = 2


def start(
    command: list[str], *, env: dict[str, str] | None = None, prefix: str = ""
) -> tuple[subprocess.Popen[str], threading.Thread]:
    """Starts a command, in a group of its own: a terminal's Ctrl-C, or a notebook's, is for the caller to hand on.

    Args:
      command: The words.
      env: Environment variables; None for those of this process.
      prefix: Put before each line of its output.

    Returns:
      The process, and the thread that prints what it prints, which ends after it.
    """
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def copy() -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                # In one piece: other processes' lines are printed at the same time.
                sys.stdout.write(f"{prefix}{line.rstrip()}\n")
                sys.stdout.flush()

    printer = threading.Thread(target=copy, daemon=True)
    printer.start()
    return process, printer


def kill(process: subprocess.Popen[str]) -> None:
    """Kills a process and whatever it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
