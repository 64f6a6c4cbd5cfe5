"""The run in a tracker that a MODEL_DIR belongs to: started once, and gone on with when the run goes on."""

from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from etils import epath

from prompt_tuning import tree
from prompt_tuning.checkpoints import json_files
from prompt_tuning.errors import ConfigError, PromptTuningError
from prompt_tuning.training.trackers import TrackedRun, Tracker

# Which run of each tracker this one is.
_FILE = "trackers.json"


def open_tracked(
    tracker: Tracker | None, model_dir: epath.Path, metadata: Mapping[str, Any], config_text: str
) -> TrackedRun | None:
    """Returns the tracked run, in process 0; None in others, without a tracker, and where it cannot be gone on with.

    Args:
      tracker: The tracker; None for none.
      model_dir: The run's directory, which keeps what the tracker calls it.
      metadata: What every checkpoint records.
      config_text: The resolved gin config.

    Raises:
      ConfigError: If the tracker cannot start a run. Where there was one before, a warning: nobody may be there to read
        an error.
    """
    if tracker is None or jax.process_index() != 0:
        return None
    path, kind = model_dir / _FILE, tracker.package
    labels = ",".join(f"{axis}={value}" for axis, value in tracker.labels.items())
    params = tree.flatten({**metadata, "axes": tracker.labels})
    was_tracked, ids = path.exists(), {}
    try:
        if was_tracked:
            ids = json_files.read(path, expected="names of tracked runs", fix="remove it")
        tracked = tracker.start(ids.get(kind), labels or model_dir.name, params, config_text)
    # Whatever a tracker raises: no network, no right, no such server.
    except Exception as error:
        if was_tracked:
            logging.warning("%s cannot go on and gets nothing of this run: %r", kind, error)
            return None
        if isinstance(error, PromptTuningError):
            raise
        raise ConfigError(
            f"{kind} cannot start a run",
            got=f"{type(error).__name__}: {error}",
            expected="a tracker that can be reached and written to",
            fix="see docs/use/tracking.md, or leave --tracker out",
        ) from error
    if kind not in ids:
        json_files.write_atomically(path, json_files.encode({**ids, kind: tracked.run_id}))
    return tracked
