"""A process that does one piece of work for one side, a round whenever it is told to.

`python -m prompt_tuning.launch.benchmarks.speed.worker SIDE WORK` answers with lines of JSON: `{"versions": …}` when
everything is compiled, then seconds for each line that it reads, the number of the round, and its memory at the end.
"""

import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from typing import Any

from prompt_tuning.launch.benchmarks import measuring
from prompt_tuning.launch.benchmarks.speed.rows import Work

# Side -> what it is made of.
SIDES = {"ours": ("jax", "jaxlib", "flax"), "peft": ("peft", "transformers", "torch")}


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def main() -> None:
    """Serves until its input ends."""
    # What libraries print goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")

    side, described = sys.argv[1:]
    settings = json.loads(described)
    model = settings.pop("model")
    # Neither side's process loads the other's libraries.
    module = importlib.import_module(f"prompt_tuning.launch.benchmarks.speed.{side}_side")
    run = module.prepare(Work(**settings), model)
    answer(versions={name: importlib.metadata.version(name) for name in SIDES[side]})
    measuring.forget_peak()
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), cpu_seconds()
        run(int(line))
        answer(seconds=time.perf_counter() - wall, cpu_seconds=cpu_seconds() - cpu)
    answer(peak_bytes=measuring.peak_bytes())


if __name__ == "__main__":
    main()
