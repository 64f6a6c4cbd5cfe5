"""A run from its flags: reads the config, joins the other processes, and hands over to the run."""

import argparse
import contextlib
import functools
import gc
import pkgutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prompt_tuning.run import startup_times

_MATPLOTLIB = "matplotlib"


def run(
    command: str,
    flags: argparse.Namespace,
    runnable: str,
    *,
    given: Sequence[Any] = (),
    bindings: Sequence[tuple[str, str]] = (),
    comment: str | None = None,
) -> None:
    """Reads the config, then imports and runs what it describes.

    Args:
      command: `train`, `eval` or `infer`: whose gin files these are.
      flags: What `flags.parse_run` returned.
      runnable: The function to call, `module:name`; to import it takes seconds.
      given: Its first arguments, which gin does not give.
      bindings: Bindings after those of `flags`, each with the flag that means it.
      comment: First line of the saved config; None says how to run it again.
    """
    times = startup_times.begin()
    from prompt_tuning.config import files, trust, values

    # Mistyped files and values are told before the seconds that the libraries take to import.
    parsed = files.read(flags.gin_file, [*flags.bindings, *bindings], flags.gin_search_paths)
    values.check(parsed)
    import jax

    from prompt_tuning.config import resolve
    from prompt_tuning.run import processes

    times.end("imports")
    if not flags.dry_run:
        _join_processes(flags, saves_on_sigterm=command == "train")
        times.end("joining")
    with processes.ending_together():
        resolve.set_data_dirs(flags.tfds_data_dir, flags.seqio_additional_cache_dirs)
        comments = _comments(command, flags, comment)
        with _importing(runnable):
            fn = functools.partial(_import(runnable), *given)
            # What trains is one's own; what is read, evaluated or only looked at may be anybody's.
            is_run = command == "train" and not flags.dry_run
            trusted = trust.ANYTHING if is_run else trust.Trust(flags.allow_imports)
            resolved = resolve.resolve(
                parsed, fn, command=command, comments=comments, trust=trusted
            )
        # To ask JAX takes the accelerator, which a dry run can do without.
        if flags.dry_run or jax.process_index() == 0:
            print(resolved.text, flush=True)
            for warning in resolved.warnings:
                print(f"warning: {warning}", file=sys.stderr)
        times.end("imports")
        if flags.dry_run:
            resolved.arguments()
        else:
            resolved.run()


@contextlib.contextmanager
def _importing(runnable: str) -> Iterator[None]:
    """Keeps the search for garbage away from what is imported inside: it took a fourth of the time and found little."""
    is_first = runnable.partition(":")[0] not in sys.modules
    if not (is_first and gc.isenabled()):
        yield
        return
    gc.disable()
    try:
        yield
        # Of the half million objects of the libraries none is looked at again.
        gc.freeze()
    finally:
        gc.enable()


def _import(runnable: str) -> Callable[..., Any]:
    """Returns the function; Keras, which TensorFlow brings along, is imported without Matplotlib."""
    # Keras takes it where it is, for pictures that nothing here draws: a tenth of what the imports take.
    is_hidden = sys.modules.setdefault(_MATPLOTLIB, None) is None  # pyright: ignore[reportArgumentType]
    try:
        return pkgutil.resolve_name(runnable)
    finally:
        if is_hidden:
            del sys.modules[_MATPLOTLIB]


def _comments(command: str, flags: argparse.Namespace, comment: str | None) -> list[str]:
    """Returns what the saved config cannot say in gin."""
    again = f"Resolved by `prompt-tuning {command}`; runs again with --gin_file=THIS_FILE alone."
    lines = [comment or again]
    if flags.tfds_data_dir:
        lines.append(f"It was given --tfds_data_dir={flags.tfds_data_dir}")
    if flags.seqio_additional_cache_dirs:
        dirs = ",".join(flags.seqio_additional_cache_dirs)
        lines.append(f"It was given --seqio_additional_cache_dirs={dirs}")
    return lines


def _join_processes(flags: argparse.Namespace, *, saves_on_sigterm: bool) -> None:
    """Joins the other processes of the run if there are any, before any device is touched."""
    from prompt_tuning.run import processes

    is_asked_for = flags.multiprocess_gpu
    if is_asked_for is None:
        is_asked_for = processes.on_tpu_pod()
    if is_asked_for:
        processes.join(
            flags.coordinator_address,
            flags.process_count,
            flags.process_index,
            initialization_timeout=flags.initialization_timeout,
            heartbeat_timeout=flags.heartbeat_timeout,
            saves_on_sigterm=saves_on_sigterm,
        )
