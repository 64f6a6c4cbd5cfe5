"""`best.json` in a MODEL_DIR: by each metric, the step that was best so far."""

import math
from typing import Any

import jax
from absl import logging
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.errors import CheckpointError

_FILE = "best.json"


class Ledger:
    """The best step of each metric.

    Args:
      model_dir: Output folder of the run.

    Attributes:
      path: The file.
      best: Metric -> its `name`, `step`, `value` and `higher_is_better`, which is True; empty if none was recorded or
        the file was damaged.
    """

    def __init__(self, model_dir: epath.PathLike):
        """Reads the file."""
        self.path = epath.Path(model_dir) / _FILE
        self.best: dict[str, dict[str, Any]] = {}
        try:
            if self.path.exists():
                self.best = _checked(json_files.read(self.path, expected="scores", fix=""))
        except (CheckpointError, ValueError) as error:
            # A score is measured again at the next evaluation; a run that does not start again is the greater loss.
            logging.warning("%s is damaged; scores are collected anew: %s", self.path, error)

    def steps(self) -> set[int]:
        """Returns the steps that are best by some metric."""
        return {entry["step"] for entry in self.best.values()}

    def record(self, step: int, name: str, value: float) -> None:
        """Notes the score of a step; ties go to the earlier step. Every process calls this; process 0 writes.

        Args:
          step: Step that was evaluated.
          name: Name of the metric.
          value: Its value, better where it is higher; one that is not finite is never best.
        """
        value, best = float(value), self.best.get(name)
        if not math.isfinite(value) or (best and value <= best["value"]):
            return
        self.best[name] = {
            "name": name,
            "step": int(step),
            "value": value,
            "higher_is_better": True,
        }
        if jax.process_index() == 0:
            json_files.write_atomically(self.path, json_files.encode(self.best))


def _checked(best: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of the file; ValueError if one is not of the form that `record` writes."""
    forms = {"name": str, "step": int, "value": int | float, "higher_is_better": bool}
    for name, entry in best.items():
        is_entry = isinstance(entry, dict) and all(
            isinstance(entry.get(part), form) for part, form in forms.items()
        )
        if not is_entry or not math.isfinite(entry["value"]):
            raise ValueError(f"{name!r}: {entry!r}")
    return best
