"""What a run writes of its numbers: TensorBoard event files, and the same to a tracker."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from prompt_tuning.training.trackers import TrackedRun


class SummaryWriter:
    """Writes scalars and texts to one TensorBoard run folder, from process 0 only.

    The tags are the caller's. clu, and TensorFlow with it, is imported when the first writer is made, so that training
    code imports where TensorFlow is not installed.

    Args:
      log_dir: Folder of the event file; made if missing, gs:// works.
      tracked: Gets the same numbers; None for no tracker.
      prefix: What stands before their tags there, where all are in one place.
    """

    def __init__(
        self, log_dir: str | os.PathLike, tracked: TrackedRun | None = None, prefix: str = ""
    ):
        self._writer: Any = None
        self._tracked = tracked
        self._prefix = prefix
        if jax.process_index() != 0:
            return
        from clu import metric_writers

        path = epath.Path(log_dir)
        path.mkdir(parents=True, exist_ok=True)
        self._writer = metric_writers.SummaryWriter(os.fspath(path))

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes numbers under their tags and flushes them to the file.

        Args:
          step: Step of all of them.
          values: Tag -> number or array of one element (a device array is fetched).
        """
        if self._writer is None:
            return
        scalars = {tag: np.asarray(value).reshape(()).item() for tag, value in values.items()}
        self._writer.write_scalars(int(step), scalars)
        self._writer.flush()
        if self._tracked:
            tagged = {f"{self._prefix}/{tag}": value for tag, value in scalars.items()}
            self._tracked.write_scalars(int(step), tagged)

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes Markdown text under a tag and flushes it to the file."""
        if self._writer is None:
            return
        self._writer.write_texts(int(step), {tag: text})
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file. Closing twice does nothing; writing after closing is ignored."""
        if self._writer is None:
            return
        self._writer.close()
        self._writer = None
