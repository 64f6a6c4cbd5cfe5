"""The command `prompt-tuning sweep`: expands sweep files, shows what is left, and runs it."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from prompt_tuning.commands.sweep import overview, progress, ray_runner, runner, worker
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.progress import Session
from prompt_tuning.commands.sweep.results import Row, Table, latest
from prompt_tuning.commands.sweep.row_form import DONE, FAILED
from prompt_tuning.commands.sweep.sweep import SCALES
from prompt_tuning.config import flags as gin_flags
from prompt_tuning.errors import ConfigError

# Exit code where cells failed; Python's own, for a runner that broke, is 1.
CELLS_FAILED = 3
# Flags that `--cell=KEY` needs beside it to find the same cells and folders.
_PASSED_ON = (
    "output_dir",
    "scale",
    "runs_dir",
    "gin_search_paths",
    "tfds_data_dir",
    "seqio_additional_cache_dirs",
)
_EPILOG = """\
--gin.NAME=VALUE sets a macro of the sweep's files; any other setting holds for every cell:
  prompt-tuning sweep prompt_tuning/configs/paper/figure_3a.gin --scale=mini --output_dir=/path --gin.RANDOM_SEED=7
"""


def main(argv: Sequence[str]) -> int:
    """Runs `prompt-tuning sweep`.

    Args:
      argv: Files and flags.

    Returns:
      Exit code: 0; `CELLS_FAILED`; 1 where the cell of --cell is not run now.

    Raises:
      ConfigError, DataError: If a file, a flag or a cell's settings are wrong; nothing has run then.
    """
    flags = _parse(list(argv))
    # TensorFlow only reads data here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    place = _place(flags)
    if flags.topology:
        # The devices of this machine, if any, are left alone.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if flags.cell:
        # Before JAX is imported.
        os.environ.update(worker.environment(place))
    runs = not (flags.dry_run or flags.print_commands or flags.cell)
    if runs and flags.ray is not None:
        ray_runner.connect(flags.ray or None)
    from prompt_tuning.commands.sweep import expansion
    from prompt_tuning.config import resolve

    resolve.set_data_dirs(flags.tfds_data_dir, flags.seqio_additional_cache_dirs)
    found = expansion.expand(
        flags.files, scale=flags.scale, flags=flags.bindings, search_paths=flags.gin_search_paths
    )
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    retries = flags.retry_failed or flags.cell is not None
    session = progress.begin(place, found.cells, retry_failed=retries)
    table = Table(flags.output_dir)
    if not flags.dry_run:
        table.write_cells(session.cells)
    if flags.print_commands:
        _say(overview.commands(session, table.read()))
        return 0
    if flags.cell:
        return _run_one(session, flags.cell)
    jobs = None if flags.ray is not None else flags.jobs or runner.default_jobs()
    _say(overview.text(session, table.read(), jobs))
    if flags.topology:
        _show_topology(session, table.read(), flags.topology)
    if flags.dry_run:
        return 0
    expansion.check_checkpoints(found.restores)
    # SIGTERM ends the runner as Ctrl-C does, so that it can tell its workers to save.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if jobs is None:
            ray_runner.run(session, flags.ray_resources, _say)
        else:
            runner.run(session, jobs, _say)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on from here.", file=sys.stderr)
        return 128 + signal.SIGINT
    rows = table.read()
    _say(overview.text(session, rows, jobs))
    has_failed = any(state == FAILED for _, state in progress.states(session, rows))
    return CELLS_FAILED if has_failed else 0


def _say(text: str) -> None:
    """Prints at once, also into a file or a pipe."""
    print(text, flush=True)


def _run_one(session: Session, key: str) -> int:
    """Runs one cell in this process, and adds its row."""
    cells = [cell for cell in session.cells if cell.key == key]
    if not cells:
        raise ConfigError(
            "--cell names no cell of these files",
            got=key,
            expected="a key that --print_commands shows",
            fix="correct it, or give the flags that it was printed with",
            name=key,
            candidates=[cell.key for cell in session.cells],
        )
    worker.run_cells(dataclasses.replace(session, only=key))
    row = latest(Table(session.place.directory).read()).get(cells[0].row_key)
    if row is None:
        print(f"{cells[0].label} is not run now: others have it, or cells it needs, in work")
        return 1
    _say(runner.describe(row))
    return 0 if row["status"] == DONE else CELLS_FAILED


def _show_topology(session: Session, rows: Sequence[Row], topology: str) -> None:
    """Prints what `prompt-tuning plan` says of one cell of each size and method."""
    from prompt_tuning.commands.plan import search, slices

    slices.prepare_process()
    left = [cell for cell, state in progress.states(session, rows) if state != DONE]

    def measure(cell: Any, name: str) -> Any:
        run = cell.run
        return search.Variants(run.gin_files, run.flags, cell.search_paths).measure(name)

    for line in overview.on_topology(left, topology, measure):
        _say(line)


def _place(flags: argparse.Namespace) -> Place:
    """The folders, and the command line to which `--cell=KEY` may be added."""
    words = ["prompt-tuning", "sweep", *flags.files]
    for name in _PASSED_ON:
        value = getattr(flags, name)
        if value:
            words.append(f"--{name}={value if isinstance(value, str) else ','.join(value)}")
    return Place(
        directory=flags.output_dir,
        runs_dir=flags.runs_dir or f"{flags.output_dir}/runs",
        sweep_command=(*words, *(typed for _, typed in flags.bindings)),
        tfds_data_dir=flags.tfds_data_dir,
        cache_dirs=tuple(flags.seqio_additional_cache_dirs),
    )


def _resources(text: str) -> dict[str, float]:
    """Reads {"TPU": 4}."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(n, (int, float)) for n in found.values()):
        raise argparse.ArgumentTypeError(f'{text!r} is not like {{"TPU": 4}}')
    return found


def _parse(argv: list[str]) -> argparse.Namespace:
    """Reads the flags; `bindings` holds the gin settings as `config.read` takes them."""
    parser = argparse.ArgumentParser(
        "prompt-tuning sweep",
        description="Runs every cell of sweep files that is missing from their table.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "files", nargs="+", metavar="FILE", help="gin file with a sweep; several share what is done"
    )
    add("--output_dir", required=True, help="folder of results.jsonl, logs and runs")
    add("--runs_dir", help="folder of the runs, if elsewhere, for example gs://bucket/runs")
    add("--scale", choices=SCALES, help="sizes and tasks of the paper's sweeps")
    add("--dry_run", action="store_true", help="check every cell, show what is left, and stop")
    add(
        "--topology",
        help="as --dry_run, and what a cell of each size and method takes on this TPU slice, such as v5e:2x4",
    )
    add(
        "--jobs",
        type=int,
        help="worker processes; default: one a core with 4 GiB, one on a TPU",
    )
    add("--retry_failed", action="store_true", help="run failed cells again")
    add("--cell", metavar="KEY", help="run this cell alone, in this process")
    add("--print_commands", action="store_true", help="print a shell line for each missing cell")
    add("--ray", nargs="?", const="", metavar="ADDRESS", help="run the cells through Ray")
    add("--ray_resources", type=_resources, default={}, help='of each cell, such as {"TPU": 4}')
    add(
        "--gin_search_paths",
        type=gin_flags.comma_separated,
        default=[],
        help="folders of gin files, comma-separated",
    )
    add("--tfds_data_dir", help="folder of TensorFlow Datasets, for all tasks")
    add(
        "--seqio_additional_cache_dirs",
        type=gin_flags.comma_separated,
        default=[],
        help="folders of cached tasks",
    )
    gin_flags.add_tracker(parser)
    others, bindings = gin_flags.split(argv)
    flags = parser.parse_args(others)
    flags.bindings = [*bindings, *gin_flags.tracker_bindings(flags.tracker)]
    _check(flags)
    return flags


def _check(flags: argparse.Namespace) -> None:
    """Raises ConfigError for flags that cannot work."""
    if "://" in flags.output_dir:
        raise ConfigError(
            "An object store cannot hold a table that several processes append to",
            got=flags.output_dir,
            expected="a folder on a file system",
            fix=f"write --runs_dir={flags.output_dir} and a local --output_dir",
        )
    if flags.jobs is not None and flags.jobs < 1:
        raise ConfigError(
            "--jobs leaves nobody to work",
            got=flags.jobs,
            expected="at least 1",
            fix="leave it out for a number that suits this machine",
        )
    flags.dry_run = flags.dry_run or bool(flags.topology)
    # Workers and clusters may start elsewhere.
    flags.output_dir = os.path.abspath(flags.output_dir)
    if flags.runs_dir and "://" not in flags.runs_dir:
        flags.runs_dir = os.path.abspath(flags.runs_dir)
