"""Runs one cell in this process and makes its row; the score comes from what the run itself has written."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import itertools
import math
import os
import pathlib
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

from prompt_tuning import evaluate
from prompt_tuning.checkpoints.paths import STEP_PREFIX, steps_in
from prompt_tuning.checkpoints.prompt_files.read import FOLDER as PROMPTS_FOLDER
from prompt_tuning.commands.ensemble import voting
from prompt_tuning.commands.sweep import expansion
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.results import Row
from prompt_tuning.commands.sweep.row_form import DONE, FAILED
from prompt_tuning.commands.sweep.sweep import ENSEMBLE, Cell
from prompt_tuning.config import resolve
from prompt_tuning.data import evaluation
from prompt_tuning.run import measured, start
from prompt_tuning.training.run_log import STEPS_PER_SECOND, UPDATE_BYTES

_MAX_ERROR_CHARACTERS = 2000
_LIBRARIES = ("jax", "flax", "optax")


def run(cell: Cell, place: Place) -> Row:
    """Runs a cell, everything that it prints going to its log, and returns its row, done or failed.

    A training run that was interrupted goes on from its last checkpoint.

    Args:
      cell: A cell.
      place: Folders.
    """
    log = place.log(cell)
    log.parent.mkdir(parents=True, exist_ok=True)
    row = first_row(cell, place)
    began = time.perf_counter()
    with _output_to(log):
        print(f"=== {datetime.datetime.now():%Y-%m-%d %H:%M:%S} {cell.sweep} {cell.label}")
        try:
            resolve.set_data_dirs(place.tfds_data_dir, place.cache_dirs)
            row["device"] = _device()
            row |= {**_RUNS[cell.command](cell, place), "status": DONE}
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}"
            row |= {"status": FAILED, "error": text[:_MAX_ERROR_CHARACTERS]}
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def first_row(cell: Cell, place: Place) -> Row:
    """Returns the row of a cell that has not run: what identifies it, and None for what is measured."""
    measured = (
        "status score metrics best_step curve trainable_params total_params steps train_seconds update_bytes"
        " seconds evaluations error device"
    )
    return {
        "sweep": cell.sweep,
        "title": cell.title,
        "scale": cell.scale,
        "cell": cell.label,
        "key": cell.key,
        "axes": dict(cell.axes),
        **dict.fromkeys(measured.split()),
        "model_dir": place.run_dir(cell.key),
        "log": str(place.log(cell)),
        "command": shlex.join(place.command(cell)),
        "sweep_command": shlex.join(place.sweep_command),
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def failed_row(cell: Cell, place: Place, error: str) -> Row:
    """Returns the row of a cell whose process could not make one."""
    return {**first_row(cell, place), "status": FAILED, "error": error[:_MAX_ERROR_CHARACTERS]}


def discard_checkpoints(cell: Cell, place: Place, row: Row) -> None:
    """Deletes the checkpoints of a cell that trained a whole model and is done; those of prompts are small and stay.

    Args:
      cell: The cell.
      place: Folders.
      row: What came out. A cell that failed keeps its checkpoints, to go on from.
    """
    folder = epath.Path(place.run_dir(cell.key))
    is_kept = row["status"] != DONE or (folder / PROMPTS_FOLDER).exists()
    if cell.command != "train" or is_kept:
        return
    for step in steps_in(folder):
        (folder / f"{STEP_PREFIX}{step}").rmtree()


def _train(cell: Cell, place: Place) -> Row:
    """Trains, then scores the best checkpoint on further tasks."""
    run_dir = place.run_dir(cell.key)
    resolved = expansion.resolve(cell, run_dir)
    arguments = resolved.arguments()
    resolved.run()
    by_step = recorded_results(epath.Path(run_dir))
    scores, best = _scores(by_step)
    row = {
        **_counts(arguments["model"], arguments["trainable_regex"]),
        "curve": [[step, score] for step, score in scores.items()],
        **_costs(run_dir),
        "steps": max(by_step, default=None),
        "evaluations": {},
    }
    if best is None:
        return row
    row |= {"best_step": best, "score": scores[best], "metrics": _flat(by_step[best])}
    path = f"{run_dir}/{STEP_PREFIX}{best}"
    for name, change in cell.evaluations.items():
        changed = expansion.resolve(cell, run_dir, change)
        more = changed.arguments()
        restore = dataclasses.replace(more["checkpoint_cfg"].restore, path=path, mode="specific")
        results = evaluate.evaluate(
            **_shared(more),
            restore_checkpoint_cfg=restore,
            output_dir=f"{run_dir}/evaluations/{name}",
            config_text=changed.text,
        )
        row["evaluations"][name] = _flat(results)
    return row


def _eval(cell: Cell, place: Place) -> Row:
    """Evaluates a model that is not trained."""
    run_dir = place.run_dir(cell.key)
    resolved = expansion.resolve(cell, run_dir)
    model = resolved.arguments()["model"]
    results = resolved.run()
    row = {
        "score": _score(results),
        "metrics": _flat(results),
        **_counts(model, ()),
        "evaluations": {},
    }
    for name, change in cell.evaluations.items():
        changed = expansion.resolve(cell, f"{run_dir}/evaluations/{name}", change)
        row["evaluations"][name] = _flat(changed.run())
    return row


def _count(cell: Cell, place: Place) -> Row:
    """Counts parameters."""
    del place
    return _counts(*expansion.countable(cell))


def _ensemble(cell: Cell, place: Place) -> Row:
    """Has the best prompts of other cells vote."""
    run_dir = place.run_dir(cell.key)
    resolved = expansion.resolve(cell, run_dir)
    arguments = resolved.arguments()
    results = voting.evaluate_ensemble(
        [_best_prompt(place.run_dir(member)) for member in cell.members],
        **_shared(arguments),
        restore_checkpoint_cfg=arguments["checkpoint_cfg"].restore,
        output_dir=run_dir,
        config_text=resolved.text,
    )
    scores = {name: _score(results[name]) for name in ("average", "best", "ensemble")}
    return {
        "score": scores["ensemble"],
        "metrics": scores,
        **_counts(arguments["model"], arguments["trainable_regex"]),
    }


_RUNS = {"train": _train, "eval": _eval, "count": _count, ENSEMBLE: _ensemble}


def recorded_results(run_dir: epath.Path) -> dict[int, dict[str, dict[str, float]]]:
    """Returns what a run's evaluations by decoding measured: step -> task -> metrics, in the order of the steps.

    Raises:
      DataError: If a line is damaged.
    """
    found: dict[int, dict[str, dict[str, float]]] = {}
    for task, values in measured.read(run_dir):
        numbers = {n: float(v) for n, v in values.items() if isinstance(v, (int, float))}
        # A run that was interrupted may have taken a step twice; both came out the same.
        found.setdefault(int(numbers.pop("step")), {})[task] = numbers
    return dict(sorted(found.items()))


def _score(results: Mapping[str, Mapping[str, float]]) -> float | None:
    """The mean of the tasks' default metrics; None if there is none that is a number."""
    selected = evaluation.default_metric(results)
    return selected[1] if selected and math.isfinite(selected[1]) else None


def _scores(
    by_step: Mapping[int, Mapping[str, Mapping[str, float]]],
) -> tuple[dict[int, float], int | None]:
    """The scores that are numbers by step, and the step of the best; None if there is none."""
    scores = {step: s for step, results in by_step.items() if (s := _score(results)) is not None}
    # The earliest of equals, as the run itself decides which checkpoint it keeps.
    return scores, max(scores, key=lambda step: (scores[step], -step), default=None)


def _flat(results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metrics by name; behind the name of their task if there are several."""
    if len(results) == 1:
        return dict(next(iter(results.values())))
    return {f"{task}/{name}": v for task, values in results.items() for name, v in values.items()}


def _shared(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that an evaluation has in common with a run."""
    return {
        "model": arguments["model"],
        "dataset_cfg": expansion.scored_data(arguments),
        "partitioner": arguments["partitioner"],
        "evaluator": arguments["evaluator"],
    }


def _counts(model: Any, trainable_regex: Sequence[str]) -> Row:
    """How many parameters there are, and how many of them learn."""
    sizes = {path: math.prod(leaf.shape) for path, leaf in model.param_shapes.items()}
    trainable = start.split_paths(model, trainable_regex)[0] if trainable_regex else []
    return {
        "trainable_params": sum(sizes[path] for path in trainable),
        "total_params": sum(sizes.values()),
    }


def _costs(run_dir: str) -> Row:
    """Seconds that the updates took over all starts of a run, and the memory that one takes, by the compiler.

    Compiling, evaluating and saving is left out. What a run that was killed had to do again counts once, as it went the
    last time.
    """
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    # 0 keeps every event.
    events = event_accumulator.EventAccumulator(
        f"{run_dir}/train", size_guidance={event_accumulator.TENSORS: 0}
    )
    events.Reload()
    logged = {
        tag: [
            (e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)
        ]
        for tag in {STEPS_PER_SECOND, UPDATE_BYTES} & {*events.Tags()["tensors"]}
    }
    rates = dict(sorted(logged.get(STEPS_PER_SECOND, ())))
    seconds = sum((b - a) / rates[b] for a, b in itertools.pairwise([0, *rates]))
    # Rows of different lengths are compiled apart.
    largest = max((size for _, size in logged.get(UPDATE_BYTES, ())), default=None)
    return {
        "train_seconds": round(seconds, 3) if rates else None,
        "update_bytes": largest and round(largest),
    }


def _best_prompt(run_dir: str) -> str:
    """The folder with the prompt of a run's best step."""
    _, best = _scores(recorded_results(epath.Path(run_dir)))
    return f"{run_dir}/{PROMPTS_FOLDER}/{STEP_PREFIX}{best}"


def _device() -> str:
    """What the cell runs on, for example "NVIDIA H100" or "8 x TPU v5 lite"."""
    kind, count = jax.devices()[0].device_kind, jax.device_count()
    return kind if count == 1 else f"{count} x {kind}"


@contextlib.contextmanager
def _output_to(path: pathlib.Path) -> Iterator[None]:
    """Sends what the block, libraries in C included, prints to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        for descriptor in kept:
            os.dup2(log, descriptor)
        with open(log, "a", buffering=1, encoding="utf-8") as file:
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
