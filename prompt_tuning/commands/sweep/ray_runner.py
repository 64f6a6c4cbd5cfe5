"""Runs a sweep through Ray: every cell is a task, wherever the cluster has what it asks for.

This process holds the claims and appends the rows, so that the machines of the cluster need not share the table. They
share the runs' folder, and have this package.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.commands.sweep import progress, worker
from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.progress import Session
from prompt_tuning.commands.sweep.results import Table
from prompt_tuning.commands.sweep.runner import MAX_TRIES, Reporter
from prompt_tuning.commands.sweep.sweep import Cell
from prompt_tuning.errors import ConfigError

# A claim is an open file, of which many systems grant a process 1,024.
_MAX_QUEUED = 512


def connect(address: str | None) -> None:
    """Joins a Ray cluster, or starts one on this machine; to be called before JAX is imported, since Ray forks.

    Args:
      address: Of the cluster; None takes RAY_ADDRESS or the cluster of this machine, or starts one here.

    Raises:
      ConfigError: If Ray is not installed.
    """
    # Ray asks at its start what usage it may report; nothing is reported unless the user says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed",
            got=str(error),
            expected="the extra `sweep`",
            fix="pip install 'prompt-tuning[sweep]', or leave --ray out",
        ) from error
    # Ray gives its workers' shell Python's path unquoted (ray-project/ray#5288): with a space in it none starts and the
    # tasks wait for ever. Machines of a cluster have paths of their own.
    python = shlex.quote(sys.executable)
    alone = address is None and "RAY_ADDRESS" not in os.environ
    environment = {"py_executable": python} if alone and python != sys.executable else None
    ray.init(address=address, runtime_env=environment, log_to_driver=False, include_dashboard=False)


def run(
    session: Session, resources: Mapping[str, float], report: Callable[[str], None] = print
) -> None:
    """Runs all cells that are missing as tasks of the Ray cluster that this process has joined.

    Args:
      session: What is to be done.
      resources: What each cell asks for, such as {"TPU": 4}; "CPU" and "GPU" are Ray's own.
      report: Called with a line for each cell that is finished.
    """
    import ray
    from ray.exceptions import RayError

    from prompt_tuning.commands.sweep import cell as cells

    table = Table(session.place.directory)
    claims, reporter = Claims(session.place.directory), Reporter(session, report)
    task = ray.remote(**_options(resources, session.place))(cells.run)
    running: dict[Any, Cell] = {}
    try:
        while True:
            # Tasks that can be started wait in Ray's own queue.
            while len(running) < _MAX_QUEUED and (cell := progress.take_next(session, claims)):
                running[task.remote(cell, session.place)] = cell
            if not running:
                break
            (done, *_), _ = ray.wait(list(running))
            cell = running.pop(done)
            try:
                row = ray.get(done)
            except RayError as error:
                # Its process has died too often.
                text = f"{type(error).__name__}: {error}"
                row = cells.failed_row(cell, session.place, text)
            progress.record(session, cell, row)
            cells.discard_checkpoints(cell, session.place, row)
            claims.release(cell.key)
            reporter.show(table.read())
    finally:
        for left in running:
            ray.cancel(left, force=True)
        ray.shutdown()


def _options(resources: Mapping[str, float], place: Place) -> dict[str, Any]:
    """What Ray is told of a task."""
    others = {name: n for name, n in resources.items() if name not in ("CPU", "GPU")}
    variables = {"TF_CPP_MIN_LOG_LEVEL": "3", **worker.environment(place)}
    # Ray hides GPUs from tasks that ask for none, and by default from nothing else.
    return {
        "num_cpus": resources.get("CPU", 1),
        "num_gpus": resources.get("GPU", 0),
        "resources": others,
        "max_retries": MAX_TRIES - 1,
        "runtime_env": {"env_vars": {name: variables[name] for name in sorted(variables)}},
    }
