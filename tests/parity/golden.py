"""Every comparison with a folder of reference numbers."""

import dataclasses
import pathlib
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from tests.parity import (
    golden_checkpoints,
    golden_data,
    golden_decoding,
    golden_forward,
    golden_lm,
    golden_training,
    golden_units,
)
from tests.parity.golden_folder import Golden, UnsupportedError
from tests.parity.rows import NotChecked, Row

Comparison = Callable[[Golden], Iterator[Row | NotChecked]]
# Name -> (what computes its rows, the files and folders it reads).
COMPARISONS: dict[str, tuple[Comparison, tuple[str, ...]]] = {
    "forward": (golden_forward.forward, ("forward.npz",)),
    "forward_metrics": (golden_forward.forward_metrics, ("forward_metrics.json",)),
    "gradients": (golden_forward.gradients, ("grads.npz",)),
    "bfloat16": (golden_forward.bfloat16, ("forward_bf16.npz", "forward.npz")),
    "losses": (golden_forward.losses, ("losses.npz",)),
    "trajectories": (golden_training.trajectories, ("meta.json",)),
    "model_tuning": (golden_training.model_tuning, ("meta.json",)),
    "adafactor": (golden_training.adafactor, ("adafactor.npz", "adafactor.json")),
    "schedules": (golden_training.schedules, ("lr_schedules.json",)),
    "decoding": (golden_decoding.decoding, ("decode.npz",)),
    "cache": (golden_decoding.cache, ("batch.npz",)),
    "sampling": (golden_decoding.distributions, ("forward.npz",)),
    "scores": (golden_forward.scores, ("score.npz",)),
    "checkpoints": (golden_checkpoints.checkpoints, ("params.npz",)),
    "optimizer_state": (golden_checkpoints.optimizer_state, ("optimizer_state.npz",)),
    "relative_positions": (golden_units.relative_positions, ("relpos.npz",)),
    "combination": (golden_units.combination, ("combine.npz",)),
    "initializers": (golden_units.initializers, ("prompt_init.npz", "prompt_init.json")),
    "metrics": (golden_data.metric_functions, ("metrics",)),
    "tasks": (golden_data.tasks, ("tasks",)),
    "language_modeling": (lambda golden: golden_lm.comparisons(golden.path), ("lm",)),
}
# What the comparisons read besides, and what only describes the rest.
_OTHER = {"meta.json", "params.npz", "prompt.npy", "batch.npz", "batches_cycle.npz", "README.md"}
_DESCRIPTIONS = {
    "manifest.json",
    "report.json",
    "verify_report.json",
    "extras_report.json",
    "t5x_checkpoint_scan.json",
}
_READ_BY_PATTERN = ("trajectory", "model_tuning", "t5x_")


@dataclasses.dataclass
class Report:
    """The result of all comparisons with one folder.

    Attributes:
      rows: What was compared.
      not_checked: What was not, and why.
    """

    rows: list[Row] = dataclasses.field(default_factory=list)
    not_checked: list[NotChecked] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether something was compared and everything holds."""
        return bool(self.rows) and all(row.ok for row in self.rows)


def compare(golden: Golden, names: tuple[str, ...] = tuple(COMPARISONS)) -> Report:
    """Returns the result of the named comparisons.

    What the folder lacks is not checked. A comparison that breaks down is a row that does not hold: numbers that cannot
    be computed are not equal.
    """
    report = Report()
    for name in names:
        comparison, files = COMPARISONS[name]
        missing = [file for file in files if not golden.has(file)]
        if missing:
            reason = f"not in this folder; nothing is compared under {name}"
            report.not_checked += [NotChecked(file, reason) for file in missing]
            continue
        try:
            for item in comparison(golden):
                kept: list[Any] = report.rows if isinstance(item, Row) else report.not_checked
                kept.append(item)
        except UnsupportedError as error:
            report.not_checked.append(NotChecked(name, f"not supported here: {error}"))
        except (
            Exception
        ) as error:  # whatever it is, the other comparisons are still worth their rows
            traceback.print_exc()
            note = f"{type(error).__name__}: {error}".splitlines()[0]
            report.rows.append(Row(f"{name}/completed", float("nan"), 0, "count", note))
    return report


def unread_files(golden: Golden) -> list[NotChecked]:
    """Returns the files and folders that no comparison reads."""
    read = {file for _, files in COMPARISONS.values() for file in files} | _OTHER | _DESCRIPTIONS
    names = sorted(path.name for path in pathlib.Path(golden.path).iterdir())
    return [
        NotChecked(name, "nothing here reads it")
        for name in names
        if name not in read and not name.startswith(_READ_BY_PATTERN)
    ]
