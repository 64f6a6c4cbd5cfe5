"""The figures as a table in Markdown."""

import os
import pathlib
import platform
import re
import statistics
from collections.abc import Mapping
from typing import Any

from prompt_tuning.launch.benchmarks.measuring import MIB
from prompt_tuning.launch.benchmarks.speed.rows import Row

HEADER = (
    "| work | unit | ours | PEFT | ours / PEFT in speed | the same by CPU seconds |",
    "|---|---|---:|---:|---:|---:|",
)


def lines_of(row: Row, ours: Mapping[str, Mapping[str, Any]], peft: Mapping[str, Any]) -> list[str]:
    """Returns the lines of one row.

    Args:
      row: The row.
      ours: Variant -> what its process answered: `rounds`, a list of `{"seconds", "cpu_seconds"}`, and `peak_bytes`.
      peft: What PEFT's answered.
    """
    unit = "examples/s" if row.work.num_examples else "s"

    def shown(seconds: float) -> str:
        return f"{row.work.num_examples / seconds if row.work.num_examples else seconds:.2f}"

    theirs, their_cpu = (_median(row, peft, name) for name in ("seconds", "cpu_seconds"))
    lines = []
    for variant, answered in ours.items():
        seconds, cpu = (_median(row, answered, name) for name in ("seconds", "cpu_seconds"))
        figures = (
            f"{shown(seconds)} | {shown(theirs)} | {theirs / seconds:.2f} | {their_cpu / cpu:.2f}"
        )
        lines.append(f"| {row.title}{variant} | {unit} | {figures} |")
    if row.has_memory:
        own, other = (side["peak_bytes"] / MIB for side in (ours[""], peft))
        figures = f"{own:,.0f} | {other:,.0f} | {other / own:.2f} | "
        lines.append(f"| peak memory of the process, {row.title} | MiB | {figures}|")
    return lines


def _median(row: Row, answered: Mapping[str, Any], name: str) -> float:
    """Seconds of a pass: the median of the sums over its rounds."""
    rounds, parts = [answer[name] for answer in answered["rounds"]], row.work.parts
    return statistics.median(
        sum(rounds[first : first + parts]) for first in range(0, len(rounds), parts)
    )


def heading(versions: Mapping[str, str], command: str) -> str:
    """Returns what stands above a table: on what it was measured, and how.

    Args:
      versions: Of both sides' libraries.
      command: That measures it again.
    """
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return (
        f"{_processor()}, {cores} cores, {memory:.0f} GiB; Python {platform.python_version()}, {libraries}.\n\n"
        f"    {command}\n"
    )


def _processor() -> str:
    """The processor's name, as Linux has it."""
    found = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)
    return found[1] if found else platform.machine()
